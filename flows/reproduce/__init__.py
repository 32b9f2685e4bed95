"""Reproductions: a model made again from its tag and proved to be the same."""
