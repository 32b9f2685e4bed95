"""Releases: promote a family, roll it back, show its history, and repair what was interrupted."""
