"""How much of a codebook is in use."""

from collections.abc import Iterator

import numpy as np


def usage(tokens: np.ndarray, codes: int) -> Iterator[tuple[str, float]]:
    """Yields how much of `codes` occurs in the integer array `tokens`, and the perplexity of their histogram.

    codebook_usage is in %; codebook_perplexity, exp of the entropy, in [1, codes]: as many codes drawn evenly
    would be as hard to guess. Both grow with the number of tokens looked at, so compare equal numbers only.
    """
    counts = np.bincount(tokens.ravel(), minlength=codes)
    if len(counts) > codes:
        raise ValueError(f"token {len(counts) - 1} does not fit a codebook of {codes}")
    share = counts[counts > 0] / counts.sum()
    yield "codebook_usage", float((counts > 0).mean() * 100)
    yield "codebook_perplexity", float(np.exp(-(share * np.log(share)).sum()))
