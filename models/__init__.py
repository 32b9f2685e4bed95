"""Layer 2: one folder per model family; losses, metrics and layers beside them. Code only, no weights."""
