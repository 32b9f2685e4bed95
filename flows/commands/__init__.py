"""One module per command; each imports what it needs when it is called, so that `remint --help` answers at once."""
