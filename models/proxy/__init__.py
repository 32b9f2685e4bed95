"""The proxy: a VQGAN whose 2-D codes are what the tokenizer's warm-up learns to predict."""
