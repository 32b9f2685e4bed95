"""A stage runs the code of its working directory, and no value of a person's stands in its command."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import code

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "data.photos.collect", "--out", "out"]


def run(folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """The stage `photos` in a folder without parameters."""
    return subprocess.run(
        COMMAND, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("linked", [True, False])
def test_a_stage_runs_the_code_of_its_working_directory(tmp_path: Path, linked: bool) -> None:
    if linked:
        code.put(tmp_path)
    else:
        shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("__pycache__"))
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: params.yaml does not exist; run from the repository's root\n")


@pytest.mark.parametrize("variables", [{"PYTHONSAFEPATH": "1"}, {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT)}])
def test_a_stage_that_would_run_other_code_says_so(tmp_path: Path, variables: dict[str, str]) -> None:
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("__pycache__"))
    done = run(tmp_path, **variables)
    assert done.returncode == 2
    wanted = f"error: data was imported from {ROOT}/data[^,]*, not from {tmp_path}/data, where this stage runs: .*\n"
    assert re.fullmatch(wanted, done.stderr)
    assert not (tmp_path / "out").exists()


def test_a_command_holds_nothing_but_names_that_the_graph_itself_fixes() -> None:
    """But for `pictures` and the names of sets: runs check both, and each is a dependency of its own stage, so that
    `dvc repro` starts no command with a name of which there is no file."""
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text().replace("foreach: ${images.sets}", "foreach: [birds]"))
    assert "vars" not in graph
    for name, stage in graph["stages"].items():
        filled = re.findall(r"\$\{([^}]*)\}", yaml.safe_dump(stage.get("do", stage)["cmd"]))
        assert all(re.fullmatch(r"pictures|key|item(\.\w+|\[\d+\])*", value) for value in filled), name
        items = stage.get("foreach", {})
        every = [*items, *(items.values() if isinstance(items, dict) else ())]
        assert all(re.fullmatch(r"[\w./@, \[\]{}':-]*", str(item).replace("${pictures}", "")) for item in every), name
