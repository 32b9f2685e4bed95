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


def test_the_gates_bench_says_how_often_releases_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.bench import run

    monkeypatch.syspath_prepend(str(ROOT / "tests" / "bench"))
    lines = run.gates(draws=20, resamples=200)
    shares = {line.variant: float(line.rate.split()[0]) for line in lines}
    assert max(shares["images, equal"], shares["depth, equal"]) <= 30  # 5 % of 20, give or take
    assert min(share for variant, share in shares.items() if "better" in variant) >= 50
    assert lines[0].speed == 1.0


def test_an_unknown_bench_names_the_known_ones() -> None:
    command = [sys.executable, str(ROOT / "tests" / "bench" / "run.py"), "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "rendering" in done.stderr
