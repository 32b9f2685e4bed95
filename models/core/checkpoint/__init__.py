"""Checkpoints: the whole state of an unfinished training, from which it goes on to the same bytes."""
