"""Kinds of generators: every package `models.KIND` with modules `generator` and `params`, found by its folder.

`models.KIND.params` offers, without importing torch:

    Params      the section `generator.KIND` of params.yaml, with the fields of `learning.Training` and `net`,
                `sampler`, `weight_decay`, `label_drop`
    Sampling    how to draw: the type of Params.sampler

`models.KIND.generator` offers:

    Net         a module, made of codes, classes, length and the fields of Params.net; Muon trains the matrices of its
                `blocks`, AdamW the rest; `start_from_codebook(codebook)`
                is called before training
    batch       (net, tokens int64 (B, K), labels int64 (B,), label_drop, random) -> what `step` learns from
    step        (net, batch, progress in [0, 1]) -> losses, of which "loss" is minimised
    sample      (net, predict, labels (B,), how, random) -> tokens int64 (B, K); predict is the net as it was trained
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from data.core.params import UserError, near

MODELS = Path(__file__).parents[1]


def names() -> list[str]:
    """The kinds that are there."""
    return sorted(path.parent.name for path in MODELS.glob("*/generator.py") if path.with_name("params.py").exists())


def check(kind: str, what: str = "") -> str:
    """The kind itself; UserError that names the known ones if it is none.

    what: the field or option that holds it, for the message.
    """
    if kind not in names():
        raise UserError(f"{what}'{kind}' is not a kind of generator{near(kind, names())}")
    return kind


def params(kind: str) -> ModuleType:
    """The module of a kind's parameters."""
    return importlib.import_module(f"models.{check(kind)}.params")


def code(kind: str) -> ModuleType:
    """The module of a kind's net and of how it learns and draws."""
    return importlib.import_module(f"models.{check(kind)}.generator")
