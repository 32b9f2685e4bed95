"""dvc.yaml against the code: a stage depends on every module it imports, and on the environment."""

import ast
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
# Tracking only watches, and package docstrings hold no code: neither can change an output.
TRACKING = {path.relative_to(ROOT).as_posix() for path in (ROOT / "models/tracking").glob("*.py")}
CANNOT_CHANGE_OUTPUTS = {*TRACKING, "models/__init__.py", "data/__init__.py"}


def stages():
    text = (ROOT / "dvc.yaml").read_text().replace("${images.sets}", "[birds]")
    graph = yaml.safe_load(text.replace("${pictures}", "artifacts/scenes"))["stages"]
    for name, stage in graph.items():
        for item in stage.get("foreach", [None]):
            filled = yaml.safe_dump(stage.get("do", stage))
            values = stage["foreach"][item] if isinstance(stage.get("foreach"), dict) else item
            if isinstance(values, dict):
                for key, value in values.items():
                    for place, part in enumerate(value if isinstance(value, list) else [value]):
                        index = f"[{place}]" if isinstance(value, list) else ""
                        filled = filled.replace("${item." + key + index + "}", part)
            filled = filled.replace("${item}", str(item)).replace("${key}", str(item))
            yield f"{name}@{item}" if item else name, yaml.safe_load(filled)


def imported(module: str) -> set[str]:
    """Files of data/ and models/ that importing `module` may load, anywhere in the file."""
    seen, queue = set(), [module]
    while queue:
        name = queue.pop()
        path = ROOT / name.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not file.exists() or file in seen:
            continue
        seen.add(file)
        if file.relative_to(ROOT).as_posix() in CANNOT_CHANGE_OUTPUTS:
            continue
        package = name.rpartition(".")[0]
        if package:
            queue.append(package)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                queue += [a.name for a in node.names if a.name.split(".")[0] in ("data", "models")]
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("data", "models"):
                queue += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    return {f.relative_to(ROOT).as_posix() for f in seen}


@pytest.mark.parametrize(("name", "stage"), stages(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_stage_depends_on_all_the_code_it_imports(name, stage):
    words = stage["cmd"].split()
    module = words[words.index("-m") + 1]
    if (ROOT / module.replace(".", "/")).is_dir():
        module += ".__main__"
    missing = [
        f
        for f in sorted(imported(module) - CANNOT_CHANGE_OUTPUTS)
        if not any(f == d or f.startswith(f"{d}/") for d in stage["deps"])
    ]
    assert missing == [], f"{name} imports these without depending on them"


@pytest.mark.parametrize(("name", "stage"), stages(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_stage_depends_on_its_environment_and_says_what_it_needs(name, stage):
    assert "requirements.lock" in stage["deps"]
    assert stage["meta"]["pool"] in ("cpu", "gpu")
    assert {"retries", "timeout"} <= stage["meta"].keys()


@pytest.mark.parametrize(("name", "stage"), stages(), ids=lambda v: v if isinstance(v, str) else "")
def test_every_path_in_a_command_is_declared(name, stage):
    outputs = [o for kind in ("outs", "metrics", "plots") for o in stage.get(kind, [])]
    declared = [next(iter(o)) if isinstance(o, dict) else o for o in outputs]
    words = stage["cmd"].split()
    for option, path in pairwise(words):
        if not path.startswith("artifacts"):
            continue
        known = declared if option == "--out" else stage["deps"]
        assert any(k == path or k.startswith(f"{path}/") for k in known), f"{name}: {option} {path}"
