"""Real photographs as an unlabelled pool of tiles, and one with measured depth as the benchmark."""
