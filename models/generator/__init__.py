"""Generators: class-conditional pictures, drawn in a tokenizer's token space."""
