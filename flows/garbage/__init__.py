"""Garbage collection: what no tag, release or run-cache entry reaches, found kind by kind."""
