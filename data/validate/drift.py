"""Drift: has the distribution of brightness or contrast moved since the previous version of the data?

The measure is the population stability index, PSI = sum (p - q) ln(p / q) over bins that each held a tenth of
the previous data; by custom 0.1 is worth a look and 0.25 is another population. Two samples of one population
already give about (bins - 1)(1/n + 1/m) (Yurdakul, "Statistical Properties of Population Stability Index",
2018), which is subtracted, so that small data sets do not cry wolf.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.core.elementary import log
from data.core.params import UserError

COLUMNS = {"brightness": 1.0, "contrast": 0.5}  # and their largest possible values
FINE = 100  # bins that are stored
COARSE = 10  # bins that are compared


def statistics(manifests: dict[str, pd.DataFrame]) -> dict[str, dict[str, list[int]]]:
    """{"scenes": {"brightness": 100 counts, ...}, ...}: small, and all that the next version needs."""
    return {
        name: {
            column: np.histogram(manifest[column].dropna(), bins=FINE, range=(0, largest))[0].tolist()
            for column, largest in COLUMNS.items()
        }
        for name, manifest in manifests.items()
    }


def read(path: str | Path) -> dict[str, dict[str, list[int]]]:
    """Statistics of an earlier version; UserError when the file is missing or holds something else."""
    try:
        stored: Any = json.loads(Path(path).read_text())
        return {
            name: {column: [int(n) for n in columns[column]] for column in COLUMNS} for name, columns in stored.items()
        }
    except FileNotFoundError:
        raise UserError(
            f"validate.previous: {path} does not exist; copy an earlier statistics.json there, or set it to null"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"validate.previous: {path} is no statistics.json of this stage ({error!r}); "
            "copy one there, or set it to null"
        ) from None


def compare(now: dict[str, dict[str, list[int]]], before: dict[str, dict[str, list[int]]]) -> pd.DataFrame:
    """One row per data set and column that both versions have: key ("scenes.brightness"), psi."""
    rows = [
        {"key": f"{name}.{column}", "psi": stability_index(counts, before[name][column])}
        for name, columns in now.items()
        if name in before
        for column, counts in columns.items()
    ]
    return pd.DataFrame(rows, columns=["key", "psi"])


def stability_index(now: list[int], before: list[int]) -> float:
    """PSI of two histograms over the same fine bins, less what chance alone gives; 0 or more."""
    old, new = np.array(before, dtype=np.float64), np.array(now, dtype=np.float64)
    if len(old) != len(new) or not old.sum() or not new.sum():
        return float("inf")
    tenth = np.ceil(COARSE * np.cumsum(old) / old.sum()).clip(1, COARSE).astype(int) - 1  # coarse bin of each fine one
    used = np.bincount(tenth, weights=old, minlength=COARSE) > 0  # a narrow distribution does not fill all ten
    p, q = (_shares(np.bincount(tenth, weights=counts, minlength=COARSE)[used]) for counts in (new, old))
    chance = (used.sum() - 1) * (1 / new.sum() + 1 / old.sum())
    return max(0.0, float(((p - q) * log(p / q)).sum() - chance))


def _shares(counts: np.ndarray) -> np.ndarray:
    counts = counts + 0.5  # half a picture more, or an empty bin would give infinity
    return counts / counts.sum()
