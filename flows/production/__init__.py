"""What is in production: a bucket of immutable bundles and an append-only log of the releases made of them."""
