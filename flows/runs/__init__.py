"""What a run is and what came of it, as values; which tags are runs."""
