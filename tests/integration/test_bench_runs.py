"""`make bench` as a command: it still runs, and its ratios are to the first variant of each bench."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import run

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


SMALLEST: dict[str, dict[str, int]] = {  # of each bench: enough to notice that what it calls has changed
    "rendering": {"scenes": 1},
    "precision": {"rounds": 1},
    "attention": {"rounds": 1},
    "gelu": {"rounds": 1},
    "sampler": {"rows": 1, "rounds": 1},
    "loader": {"images": 4, "rounds": 1},
    "start": {"warm": False},
    "command": {"rounds": 1},
    "catalogue": {"versions": 8, "releases": 2, "rounds": 1},
    "gates": {"draws": 2, "resamples": 20},
    "samba": {"longest": 128, "place": 256, "rounds": 1},
    "ranks": {"steps": 1, "variants": 1},  # the others start processes for it, as test_ranks.py does
}


@pytest.mark.parametrize("name", run.BENCHES)
def test_each_bench_runs_at_its_smallest_size_and_its_first_variant_is_what_the_others_are_held_against(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests" / "bench"), *sys.path])
    lines = run.BENCHES[name](**SMALLEST[name])
    assert lines
    assert lines[0].speed == 1.0
    assert all(line.seconds > 0 for line in lines)


def test_the_command_prints_its_lines_as_json_and_its_progress_apart() -> None:
    command = [sys.executable, str(ROOT / "tests" / "bench" / "run.py"), "gelu", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line["bench"] for line in json.loads(done.stdout)] == ["GELU", "GELU"]
    assert "bench gelu ... " in done.stderr


def test_the_gates_bench_says_how_often_releases_pass(monkeypatch: pytest.MonkeyPatch) -> None:
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
