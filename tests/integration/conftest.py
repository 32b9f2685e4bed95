"""A small repository with a graph of five stages that takes seconds: what the flow's tests run instead of training."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flows.release.stores import Stores

ODD = "öde ?%41#&;$HOME `x` 'y' \"z\""  # a folder's name with what addresses, ini files and shells have a meaning for

STAGE = '''\
"""A stage: reads its inputs and parameters, prints, writes a text, a metric and a picture."""
import json, sys, time
from pathlib import Path
from typing import TYPE_CHECKING
import yaml

name, out, *inputs = sys.argv[1:]
params = yaml.safe_load(Path("params.yaml").read_text())
print(name, "starts", flush=True)
if params["behaviour"]["fails"] == name:
    sys.exit(params["behaviour"]["code"])
if params["behaviour"]["hangs"] == name:
    print("step 1/2 (50 %)  1 s left", end="\\r", flush=True)
    time.sleep(600)
read = [path.read_text() for i in inputs for path in sorted(Path(i).rglob("*.txt"))]
Path(out).mkdir(parents=True, exist_ok=True)
Path(out, "text.txt").write_text(f"{name} {params.get(name.split('@')[0])} {read}")
if name == "left":
    Path(out, "metrics.json").write_text(json.dumps({"psnr": 20.5}))
    from PIL import Image
    Path(out, "figures").mkdir()
    Image.new("RGB", (8, 8), "red").save(Path(out, "figures", "square.png"))
print(name, "done")
'''

DVC_YAML = """\
stages:
  base:
    cmd: python stage.py base artifacts/base
    deps: [stage.py]
    params: [base]
    outs: [artifacts/base]
  left:
    cmd: python stage.py left artifacts/left artifacts/base
    deps: [stage.py, artifacts/base]
    params: [left, behaviour]
    outs: [artifacts/left/text.txt, artifacts/left/figures]
    metrics: [artifacts/left/metrics.json]
    meta: {pool: gpu, retries: 1, timeout: 300}
  right:
    foreach: [a, b]
    do:
      cmd: python stage.py right@${item} artifacts/right/${item} artifacts/base
      deps: [stage.py, artifacts/base/text.txt]
      params: [right]
      outs: ["artifacts/right/${item}"]
  end:
    cmd: python stage.py end artifacts/end artifacts/left artifacts/right
    deps: [stage.py, artifacts/left, artifacts/right]
    outs: [artifacts/end]
"""

PARAMS = """\
base: 1  # a comment
left: {lr: 0.001}
right: [1, 2]
behaviour: {fails: nobody, code: 1, hangs: nobody}
"""


@dataclass(frozen=True)
class Toy:
    """The small repository, and the command line in it."""

    root: Path

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen:
        """`remint ...` as a process of its own."""
        command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
        known = {key: value for key, value in os.environ.items() if not key.startswith(("REMINT_", "PREFECT_"))}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.root, env=known | variables, text=True, **pipes)

    def remint(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """`remint ...` to its end."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=400)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()


@pytest.fixture(scope="session")
def make_toy() -> Callable[[Path], Toy]:
    """Makes the small repository in a folder, with one commit."""

    def make(root: Path) -> Toy:
        from dvc.repo import Repo

        toy = Toy(root)
        root.mkdir(parents=True, exist_ok=True)
        toy.git("init", "--quiet")
        Repo.init(str(root)).close()
        (root / "stage.py").write_text(STAGE)
        (root / "dvc.yaml").write_text(DVC_YAML)
        (root / "params.yaml").write_text(PARAMS)
        (root / ".gitignore").write_text("/artifacts/\n/.remint/\n__pycache__/\n")
        for folder, name, text in (("mlflow", "promotion.yaml", "{}\n"), ("models/recipes", "more.yaml", "base: 7\n")):
            (root / folder).mkdir(parents=True)
            (root / folder / name).write_text(text)
        toy.git("add", "--all")
        toy.git("commit", "--quiet", "--message", "Start")
        return toy

    return make


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose first run is released; the second is registered and not judged. To be copied, not changed."""
    from flows.pipeline import run_record
    from flows.release import of_run, recorded, stores
    from tests import released

    root = tmp_path_factory.mktemp("released") / "project"
    chosen = released.project(root)
    first = released.train(chosen, 1)
    with stores.opened(chosen) as places:
        released.finished(places, first)
        second = released.train(chosen, 2)
        noted = run_record.load(chosen, second.id)
        assert noted is not None
        with recorded.opened(places, second) as ran:
            of_run.register(places, ran, [], noted.results)
        run_record.save(chosen, second, noted.results, finished=True)
    return root


@pytest.fixture
def places(two_runs: Path, tmp_path: Path) -> Iterator[Stores]:
    """The stores of a copy of `two_runs`, with its checkout as the current folder."""
    from flows.release import stores
    from tests import released

    with contextlib.chdir(tmp_path), stores.opened(released.copied(two_runs, tmp_path / "project")) as opened:
        os.chdir(opened.settings.root)
        yield opened
