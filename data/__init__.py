"""Layer 1: from a seed or a folder of photographs to validated, packed, loadable samples."""
