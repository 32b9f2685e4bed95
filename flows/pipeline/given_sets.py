"""Sets of pictures in a checkout: `images.sets` of params.yaml, and the lists of their files that git tracks."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.core import files, params, plain_yaml
from data.core.params import UserError, near
from data.pictures import check, listing, places, sheet
from data.pictures.params import named
from flows import repository
from flows.pipeline import parameters

NEW = {  # what a set has until somebody says otherwise
    "size": 256,
    "crop": "centre",
    "licence": "",
    "held_out_share": 0.1,
    "per_shard": 1000,
    "max_bad_share": 0.2,
    "max_pixels": 100_000_000,
}


def add(top: Path, name: str, source: str, chosen: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """List a source and write the set, or what `chosen` changes of it; its values and how many files it has.

    The list is there before params.yaml names the set: cut off in between, nothing has changed but a file more.
    """
    where = f"images.sets.{named(name)}.source"
    whole = parameters.read(top)
    check.judge(whole, parameters.FILE)  # before a source is read for hours
    before = (whole.get("images") or {}).get("sets", {}).get(name, {})
    values = {"source": "", **NEW, **before, **chosen} | {"source": _written(top, source, where)}
    sets = {**(whole.get("images") or {}).get("sets", {}), name: values}
    check.judge({**whole, "images": {"sets": sets}}, parameters.FILE)
    found, single = places.open(_seen(top, values["source"]), where)
    listed = listing.of(found, single, where)
    path = top / listing.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, listing.text(listed).encode("ascii"))
    files.write_whole(top / parameters.FILE, _with(top / parameters.FILE, name, values))
    return values, len(listed.files)


def every(top: Path) -> list[dict[str, Any]]:
    """The sets with their parameters, and what their stages made of them where that lies in the checkout."""
    return [_described(top, name, values) for name, values in _sets(top).items()]


def one(top: Path, name: str) -> dict[str, Any]:
    """One of them; UserError if there is no set of this name."""
    sets = _sets(top)
    if name not in sets:
        raise UserError(f"there is no set '{name}'{near(name, sets) or '; remint data add NAME SOURCE'}")
    return _described(top, name, sets[name])


def _sets(top: Path) -> dict[str, Any]:
    """`images.sets` of params.yaml, checked."""
    whole = parameters.read(top)
    return {name: whole["images"]["sets"][name] for name in check.judge(whole, parameters.FILE)}


def _described(top: Path, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    folder = top / check.GIVEN / name
    try:
        made = json.loads((folder / "info.json").read_text(encoding="utf-8"))
        aside = json.loads((folder / "quarantine.json").read_text(encoding="utf-8"))
    except OSError:
        made, aside = None, []
    count = len(listing.read(top / listing.path(name)).files)
    about = {"made": made, "quarantine": aside, "sheet": str(folder / sheet.FILE) if made else None}
    return {"name": name, "files": count, **values, **about}


def _written(top: Path, source: str, where: str) -> str:
    """A source as params.yaml has it: relative inside the checkout, where it must be tracked, else the whole path."""
    if source.startswith("s3://"):
        return source.rstrip("/")
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise UserError(f"{where}: {source} does not exist; name a folder, a tar, a parquet or a CSV")
    if not path.resolve().is_relative_to(top.resolve()):
        return str(path)
    inside = path.resolve().relative_to(top.resolve())
    above = [top / place for place in (inside, *inside.parents)]
    by_dvc = any(place.with_name(f"{place.name}.dvc").exists() for place in above if place != top)
    if not by_dvc and not repository.git(top, "ls-files", "--", inside.as_posix()):
        raise UserError(
            f"{where}: {source} lies in the checkout and neither git nor DVC tracks it, so no run would see it; "
            f"dvc add {inside} and commit, or move it out of the checkout"
        )
    return inside.as_posix()


def _seen(top: Path, source: str) -> str:
    return source if source.startswith("s3://") else str(top / source)


def _with(path: Path, name: str, values: Mapping[str, Any]) -> bytes:
    """The text of params.yaml with the set in it. Only the section `images` is written anew: ruamel would fold long
    lines elsewhere."""
    from ruamel.yaml import YAML

    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    starts = [at for at, line in enumerate(lines) if line.startswith("images:")]
    begin = starts[0] if starts else len(lines)
    behind = [at for at in range(begin + 1, len(lines)) if lines[at][0] not in " \n#"]
    end = behind[0] if behind else len(lines)
    while end > begin and not lines[end - 1].strip():
        end -= 1
    ruamel = YAML()  # keeps comments, and makes nothing but lists, texts and numbers
    ruamel.width = 4096
    section = ruamel.load("".join(lines[begin:end]) or "images:\n  sets: {}\n")
    sets = section["images"].get("sets")
    if sets:
        sets.setdefault(name, {}).update(values)
    else:
        section["images"]["sets"] = {name: dict(values)}  # of its own, as {} would stay on one line
    text = io.StringIO()
    ruamel.dump(section, text)
    made = "".join([*lines[:begin], text.getvalue(), *lines[end:]]).encode()
    if plain_yaml.loads(made) != _expected(path, name, values):
        raise UserError(f"{path}: section images is not written as it can be added to; put the set there by hand")
    return made


def _expected(path: Path, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """All values of params.yaml with the set among them."""
    whole = params.read(path)
    sets = (whole.get("images") or {}).get("sets") or {}
    return whole | {"images": {"sets": sets | {name: dict(values)}}}
