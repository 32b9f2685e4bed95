"""What an installed Remint needs is in its wheel: code, and the files beside it that code reads."""

import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from setuptools import find_namespace_packages

from flows.catalogue import migrate

ROOT = Path(__file__).parents[2]
READ = (
    "data",
    "models",
    "flows",
    migrate.SCRIPTS.relative_to(ROOT).as_posix(),
)  # folders that code is imported or reads


def test_every_file_that_code_reads_is_in_the_wheel():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {
        name.replace(".", "/") for name in find_namespace_packages(ROOT, include=about["packages"]["find"]["include"])
    }
    kinds = ["*.py", *about["package-data"]["*"]]
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", *READ], capture_output=True, text=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    files = [Path(line) for line in tracked.stdout.splitlines()]
    assert migrate.SCRIPTS / "versions" / "0001_first_tables.py" in [ROOT / file for file in files]
    left_out = [
        file.as_posix()
        for file in files
        if file.parent.as_posix() not in packages or not any(fnmatch(file.name, kind) for kind in kinds)
    ]
    assert left_out == []
