"""TiTok: an image as a short row of discrete tokens, and back (Yu et al. 2024)."""
