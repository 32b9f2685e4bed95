"""Garbage collection: what no tag, release or run-cache entry reaches, found by one module per kind."""
