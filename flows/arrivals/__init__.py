"""Photographs that arrive: taken in once each, kept by digest, and held against what production was made from."""
