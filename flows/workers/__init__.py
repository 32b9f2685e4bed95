"""Stages on other machines: who tries them, what a worker is told, what it gives back."""
