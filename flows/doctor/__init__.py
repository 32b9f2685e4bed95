"""What was interrupted or disagrees: found, named and repaired; `remint doctor`."""
