"""Depth: a teacher on rendered scenes, its labels on pictures without depth, and students that learn from these."""
