"""Elementary functions of arrays by additions, multiplications and divisions alone: the same bits on any processor.

NumPy's own and the system's choose their kernel by the processor (AVX-512 or not, fused or not), and the last bit
with it. Errors are below 4e-16 of the result (of 1, for `sin` and `cos`); `power` has more, as its result grows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10  # their sum is ln 2; k times the first is exact
QUARTER = (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21)  # pi / 2, likewise
SINE = tuple((1, -1)[k % 2] / math.factorial(2 * k + 1) for k in range(9))
COSINE = tuple((1, -1)[k % 2] / math.factorial(2 * k) for k in range(9))
EXPONENTIAL = tuple(1 / math.factorial(k) for k in range(14))
LOGARITHM = tuple(2 / (2 * k + 1) for k in range(12))


def exp(x: ArrayLike) -> np.ndarray:
    """e to the x, for |x| < 700; below it is taken for -700."""
    x = np.maximum(np.asarray(x, np.float64), -700.0)
    k = np.rint(x / (LN2_HIGH + LN2_LOW))
    return np.ldexp(_series(EXPONENTIAL, (x - k * LN2_HIGH) - k * LN2_LOW), k.astype(np.int32))


def log(x: ArrayLike) -> np.ndarray:
    """The natural logarithm of x > 0."""
    part, k = np.frexp(np.asarray(x, np.float64))
    small = part < math.sqrt(0.5)
    part, k = np.where(small, 2 * part, part), np.where(small, k - 1, k)
    s = (part - 1) / (part + 1)  # log part = 2 atanh s
    return k * LN2_HIGH + (s * _series(LOGARITHM, s * s) + k * LN2_LOW)


def power(x: ArrayLike, exponent: float) -> np.ndarray:
    """x >= 0 to a positive exponent."""
    x = np.asarray(x, np.float64)
    return np.where(x > 0, exp(exponent * log(np.where(x > 0, x, 1.0))), 0.0)


def sin(x: ArrayLike) -> np.ndarray:
    """The sine of x in radians, |x| < 1000."""
    return _wave(x, 0)


def cos(x: ArrayLike) -> np.ndarray:
    """The cosine of x in radians, |x| < 1000."""
    return _wave(x, 1)


def _wave(x: ArrayLike, quarters: int) -> np.ndarray:
    x = np.asarray(x, np.float64)
    k = np.rint(x / QUARTER[0])
    rest = ((x - k * QUARTER[0]) - k * QUARTER[1]) - k * QUARTER[2]
    quarter = (k.astype(np.int64) + quarters) % 4
    square = rest * rest
    value = np.where(quarter % 2 == 0, rest * _series(SINE, square), _series(COSINE, square))
    return np.where(quarter < 2, value, -value)


def _series(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total *= x
        total += coefficient
    return total
