"""A run of the graph: prepared, scheduled, watched, finalised, reported."""
