"""The guard between making data and training on it: expectations over the manifests, with pages that show them."""
