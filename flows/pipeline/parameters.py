"""The parameters of a run: `params.yaml`, with a recipe over it, with single values over that.

A recipe (`models/recipes/NAME.yaml`) has the shape of `params.yaml` and holds the values that differ. Neither a
recipe nor `--set` can add a name or change the type of a value: what `params.yaml` does not know, no stage reads.
"""

import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.core import digests, params, plain_yaml
from data.core.params import UserError, near
from flows import repository
from flows.foreign import is_foreign
from flows.pipeline.graph import Stage
from flows.pipeline.plan import Plan

RECIPES = Path("models/recipes")
FILE = Path("params.yaml")
CHECK = Path("models/sections.py")


def changes(root: Path, recipe: str | None, assignments: Iterable[str]) -> dict[str, Any]:
    """What a recipe and `key=value` texts change in root/params.yaml: {"generator.lr": 0.001}, checked.

    Later assignments win over earlier ones and over the recipe. UserError for an unknown recipe or key (with the
    nearest known one) and for a value of another type.
    """
    base = read(root)
    wanted: dict[str, Any] = {}
    if recipe is not None:
        name, values = _recipe(root, recipe)
        wanted |= {key: fitting(base, key, value, name) for key, value in _leaves(values, base)}
    for text in assignments:
        key, value = _assignment(text)
        wanted[key] = fitting(base, key, value, "--set")
    return {key: value for key, value in wanted.items() if value != _at(base, key)}


def apply(root: Path, wanted: Mapping[str, Any]) -> None:
    """Write the changed values into root/params.yaml; comments and order stay."""
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(str(root / FILE)) as values:
        for key, value in wanted.items():
            *sections, last = key.split(".")
            place = values
            for section in sections:
                place = place[section]
            place[last] = value


def check(root: Path) -> None:
    """UserError if some stage of the commit in `root` could not use its parameters: the commit's own code says so."""
    read(root)
    if not (root / CHECK).exists():
        return
    plain = {name: value for name, value in os.environ.items() if not is_foreign(name)}
    command = [sys.executable, "-m", ".".join(CHECK.with_suffix("").parts)]
    done = subprocess.run(command, cwd=root, env=plain, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        mistake = last.startswith("error: ")
        raise UserError(last.removeprefix("error: ") if mistake else f"{CHECK} of this commit cannot be run: {last}")


def source_of(root: Path, stage: str) -> dict[str, str]:
    """Where a stage of given pictures reads them, as the variable by which it gets the keys of S3; {} of another."""
    family, _, name = stage.partition("@")
    found = read(root).get("images", {}).get("sets", {}).get(name) if family == "images" else None
    return {"REMINT_PICTURES": str(found["source"])} if found else {}


def serve(root: Path, stages: Sequence[Stage], planned: Plan) -> None:
    """UserError if a stage asks for a parameter that is not there, or is to run here as one node of several."""
    values = read(root)
    for stage in stages:
        for key in stage.params:
            _at(values, key, f"dvc.yaml: stage '{stage.name}'")
    nodes = _nodes(values)
    alone = [stage.name for stage in stages if "accelerate" in stage.params and planned.action(stage.name) == "run"]
    if nodes > 1 and alone:
        raise UserError(
            f"accelerate.nodes is {nodes}, but a run starts stages on one machine, and {alone[0]} would wait for the "
            "others for ever; train it on all of them first (docs/stack.md, Several nodes), or set it to 1"
        )


def _nodes(values: Mapping[str, Any]) -> int:
    section = values.get("accelerate")
    return section.get("nodes", 1) if isinstance(section, Mapping) else 1


def digest(root: Path) -> str:
    """sha256 of root/params.yaml."""
    return digests.sha256(root / FILE)


def read(root: Path) -> dict[str, Any]:
    """root/params.yaml as the stages and DVC read it."""
    if not (root / FILE).exists():
        raise UserError(f"the commit has no {FILE}, so there are no parameters to run with")
    return params.read(root / FILE)


def earlier(root: Path, commit: str) -> dict[str, Any]:
    """params.yaml of a commit as it was read then, {} without one: a stage would refuse some of it today."""
    from dvc.utils.serialize import loads_yaml

    return loads_yaml(repository.file_at(root, commit, FILE.as_posix()) or "") or {}


def fitting(base: Mapping[str, Any], key: str, value: Any, where: str) -> Any:
    """`value` in the type that `base` has at `key`; UserError if there is no such key or it does not fit.

    A value that came as text is read the way the present value is written: "1e-3" is a number where a number is
    wanted, "0123" stays text where a text is wanted.
    """
    present = _at(base, key, where)
    if isinstance(present, Mapping):
        inner = next(iter(present), "name")
        raise UserError(f"{where}: {key} is a section; set a value in it, as in {key}.{inner}")
    if isinstance(value, str) and not isinstance(present, str):
        value = _parsed(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {key} must be a finite number, not {value}")
    if present is None or _same_type(value, present):
        return value
    if isinstance(present, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    raise UserError(f"{where}: {key} must be {_kind(present)} (it is {_shown(present)}), not {_shown(value)}")


def _recipe(root: Path, name: str) -> tuple[str, dict[str, Any]]:
    path = root / RECIPES / f"{name}.yaml"
    known = sorted(file.stem for file in (root / RECIPES).glob("*.yaml"))
    if name not in known:
        hint = near(name, known) or f"; {RECIPES}/ of this commit has none"
        raise UserError(f"there is no recipe '{name}'{hint}")
    return path.relative_to(root).as_posix(), params.read(path)


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text}: write it as key=value, for example --set generator.maskgit.lr=0.001")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"--set {key}: the value is not UTF-8; rename the folder, or name it by a link") from None
    return key.strip(), value.strip()


def _leaves(values: Mapping[str, Any], base: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        inner = base.get(key) if isinstance(base, Mapping) else None
        if isinstance(value, Mapping) and (isinstance(inner, Mapping) or inner is None):
            yield from _leaves(value, inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _at(base: Mapping[str, Any], key: str, where: str = "") -> Any:
    place: Any = base
    walked: list[str] = []
    for part in key.split("."):
        if not isinstance(place, Mapping) or part not in place:
            known = _keys(base)
            raise UserError(f"{where}: {key} is not in {FILE}{_near_key(key, part, walked, place, known)}")
        place = place[part]
        walked.append(part)
    return place


def _near_key(key: str, part: str, walked: Sequence[str], place: Any, known: Sequence[str]) -> str:
    """The nearest name: first beside the part that is wrong, then, for a bare last name, anywhere."""
    ends = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    if len(ends) == 1:
        return f"; did you mean '{ends[0]}'?"
    beside = place if isinstance(place, Mapping) else {}
    return near(".".join([*walked, part]), [".".join([*walked, str(name)]) for name in beside]) or near(key, known)


def _keys(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    inner = [(f"{prefix}{key}", value) for key, value in values.items()]
    return [n for name, v in inner for n in (_keys(v, f"{name}.") if isinstance(v, Mapping) else [name])]


def _parsed(text: str) -> Any:
    try:
        return plain_yaml.loads(text)
    except plain_yaml.Refused:
        return text


def _same_type(value: Any, present: Any) -> bool:
    if isinstance(value, bool) or isinstance(present, bool):
        return isinstance(value, bool) and isinstance(present, bool)
    if isinstance(value, list) and isinstance(present, list):
        return all(not present or _same_type(item, present[0]) or _is_number(item, present[0]) for item in value)
    return isinstance(value, type(present)) or isinstance(present, type(value))


def _is_number(value: Any, present: Any) -> bool:
    return isinstance(present, float) and isinstance(value, int) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}
    return next((words for kind, words in kinds.items() if isinstance(value, kind)), type(value).__name__)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, str) else str(value)
