"""`make bench` as a command: it still runs, and its ratios are to the first variant of each bench."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def test_a_bench_prints_its_lines_as_json_and_its_progress_apart() -> None:
    command = [sys.executable, str(ROOT / "tests" / "bench" / "run.py"), "gelu", "loader", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = json.loads(done.stdout)
    assert [line["bench"] for line in lines] == ["GELU", "GELU", "loader", "loader"]
    assert lines[0]["speed"] == lines[2]["speed"] == 1.0
    assert "bench gelu ... " in done.stderr


def test_an_unknown_bench_names_the_known_ones() -> None:
    command = [sys.executable, str(ROOT / "tests" / "bench" / "run.py"), "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "rendering" in done.stderr
