"""Gates: what a model must show before it goes to production, judged on the same held-out samples."""
