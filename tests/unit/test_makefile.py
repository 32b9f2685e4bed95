"""What `make` would do, as `make -n` says it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "a checkout's $HOME"
    (root / ".venv").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, root / name)
    return root


def said(root):
    # `make test ARGS=...` gives its children what it was given, and with MAKELEVEL a make within tells its folder
    outside = {"PATH": os.environ["PATH"]}
    asked = subprocess.run(["make", "-n", "retrain"], cwd=root, env=outside, capture_output=True, text=True, check=True)
    return asked.stdout


def test_an_environment_that_came_along_with_a_moved_checkout_is_made_anew(checkout):
    ready = checkout / ".venv" / ".ready"
    assert "python3 -m venv  .venv" in said(checkout)
    ready.write_text(f"{checkout.resolve()}\n")
    assert said(checkout) == ".venv/bin/python -m flows.cli retrain \n"
    ready.write_text("/somewhere/else\n")
    assert "python3 -m venv --clear .venv" in said(checkout)
    ready.write_text("")  # of an earlier Makefile
    assert said(checkout) == ".venv/bin/python -m flows.cli retrain \n"
