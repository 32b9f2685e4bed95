"""Sets of pictures in params.yaml before anything runs: each as its stage will read it, and what `pictures` names.

`models.sections` calls this in a run's worktree, so that the commit's own code judges its parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.core import params
from data.core.params import UserError, near
from data.pictures import listing
from data.pictures.params import Set, named

FILE = Path("params.yaml")
RENDERED, GIVEN = "artifacts/scenes", "artifacts/images"


def check(root: Path = Path()) -> dict[str, Set]:
    """The sets of a checkout, each with its list; UserError for the first that no stage could use."""
    found = judge(params.read(root / FILE), FILE)
    for name in found:
        listing.read(root / listing.path(name))
    return found


def judge(whole: dict[str, Any], path: str | Path) -> dict[str, Set]:
    """The sets in the file's values by name."""
    images = whole.get("images", {"sets": {}})
    sets = images.get("sets") if isinstance(images, dict) else None
    if not isinstance(images, dict) or not isinstance(sets, dict) or len(images) > 1:
        raise UserError(f"{path}: images must be a section with the one section sets, as remint data add writes it")
    for name in sets:
        named(name)
    found = {name: params.pick(Set, f"images.sets.{name}", whole, path) for name in sets}
    known = [RENDERED, *(f"{GIVEN}/{name}" for name in found)]
    if (value := whole.get("pictures", RENDERED)) not in known:
        raise UserError(f"{path}: pictures must name a folder of pictures, not {value!r}{_hint(value, known)}")
    return found


def _hint(value: Any, known: list[str]) -> str:
    """The near name; a set may be called without its folder."""
    if isinstance(value, str) and f"{GIVEN}/{value}" in known:
        return f"; did you mean '{GIVEN}/{value}'?"
    return near(value, known)
