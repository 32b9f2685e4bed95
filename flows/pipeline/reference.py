"""How a person names a model version: `tokenizer`, `tokenizer@production`, `tokenizer@v3`."""

from __future__ import annotations

import re

from data.core.params import UserError

REFERENCE = re.compile(r"(?P<model>[A-Za-z0-9][A-Za-z0-9_-]*)(@(?P<which>[A-Za-z0-9][A-Za-z0-9._-]*))?")
VERSION = re.compile(r"v?(\d{1,9})(\.0\.0)?")
PRODUCTION, PREVIOUS = "production", "previous"  # the aliases that releases move
GTO_TAG = "gto_tag"  # on a version in MLflow: its tag in git
RUN_TAG = "git_tag"  # and that of the run that made it


def parse(reference: str) -> tuple[str, str | None]:
    """The model and what stands behind the "@", if anything does; UserError for what is no reference."""
    parts = REFERENCE.fullmatch(reference)
    if parts is None:
        raise UserError(f"'{reference}' is not MODEL, MODEL@ALIAS or MODEL@VERSION, such as tokenizer@production")
    return parts["model"], parts["which"]


def number(which: str) -> int | None:
    """The number of a version as `v3`, `3` or `v3.0.0` name it, None of an alias."""
    found = VERSION.fullmatch(which)
    return int(found[1]) if found else None
