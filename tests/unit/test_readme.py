"""What README and docs/ claim and can be checked without running anything long."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click import shell_completion
from click.testing import CliRunner

from flows import cli
from flows.cli import COMMANDS
from flows.pipeline import parameters

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
FILES = (ROOT / "docs" / "files.md").read_text()


def listed():
    """Paths of the file tree: an indented name belongs to the folder above it."""
    block = FILES.split("```\npyproject.toml")[1].split("```")[0]
    folders: list[str] = []  # the folder the line before stands in, part by part
    for line in f"pyproject.toml{block}".splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        del folders[depth:]
        yield "".join(folders) + name
        if name.endswith("/"):
            folders.append(name)


def test_the_file_tree_names_every_python_file_and_nothing_that_is_not_there():
    names = set(listed())
    assert [n for n in names if not (ROOT / n).exists() and n != "dvc.lock"] == []
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    code = {f for f in tracked if f.startswith(("data/", "models/", "flows/")) and f.endswith(".py")}
    assert {f for f in code if not f.endswith("__init__.py")} - names == set()


def test_every_make_target_it_names_exists():
    rules = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make (\w+)", TEXT, re.M)):
        assert re.search(rf"^{target}:", rules, re.M), target


def test_every_picture_it_shows_is_there():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT):
        assert (ROOT / path).stat().st_size > 10_000


def test_a_docstring_that_says_how_long_something_takes_names_the_processor():
    duration = re.compile(r"\b(?:\d[\d.-]*|two|three|five|several)\s+(?:s|ms|seconds?|minutes?|min)\b")
    unnamed = []
    for path in [*(ROOT / "data").rglob("*.py"), *(ROOT / "models").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                text = ast.get_docstring(node) or ""
                measured = duration.search(text) and re.search(r"\b(cores?|a step)\b", text)
                if measured and not re.search("EPYC|Xeon|Ryzen|Core i", text):
                    unnamed.append(f"{path.relative_to(ROOT)}: {duration.search(text)[0]}")
    assert unnamed == []


def test_every_command_it_names_exists_and_takes_its_recipe_and_parameters():
    pages = [TEXT, *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    lines = [line for page in pages for line in re.findall(r"^(?:remint|make retrain) .*", page, re.M)]
    assert {line.split()[1].strip(";") for line in lines if line.startswith("remint")} <= set(COMMANDS)
    for line in lines:
        recipe = re.search(r"--recipe (\w+)", line)
        parameters.changes(ROOT, recipe and recipe[1], re.findall(r"--set (\S+?=[^\s\"`]+)", line))


def test_its_numbers_of_runs_are_compared_as_dvc_can_with_nothing_checked_out():
    """`dvc metrics diff run/...` alone compares with a workspace that has no outputs: a column of dashes."""
    assert [line.split("#")[0].split() for line in TEXT.splitlines() if line.startswith("dvc metrics diff")] == [
        ["dvc", "metrics", "diff", "run/...", "run/..."]
    ]


def test_what_stands_at_the_top_is_named_in_its_list_of_files():
    block = TEXT.split("## Files")[1].split("```")[1]
    for name in ("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "docker-compose.yml", "dvc.yaml", "params.yaml"):
        assert name in block
        assert (ROOT / name).exists()


def test_who_imports_a_package_is_told_that_it_has_types():
    for package in ("data", "models", "flows"):
        assert (ROOT / package / "py.typed").exists()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["*"]
    assert project["project"]["license"] == "Apache-2.0"
    assert (ROOT / "LICENSE").read_text().split()[:2] == ["Apache", "License"]


def test_the_command_says_its_version_which_is_the_project_s():
    said = CliRunner().invoke(cli.main, ["--version"], prog_name="remint").output
    assert said == f"remint {tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}\n"


def test_the_shell_completes_commands_and_options_as_it_says():
    assert 'eval "$(_REMINT_COMPLETE=bash_source remint)"' in TEXT
    complete = shell_completion.BashComplete(cli.main, {}, "remint", "_REMINT_COMPLETE")
    assert {one.value for one in complete.get_completions([], "re")} == {"retrain", "reproduce"}
    assert "--recipe" in {one.value for one in complete.get_completions(["retrain"], "--re")}


@pytest.mark.parametrize("made", ["docs/files.py", "docs/variables.py"])
def test_a_page_that_is_made_of_the_code_is_as_the_code_is_now(made):
    done = subprocess.run([sys.executable, made, "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
