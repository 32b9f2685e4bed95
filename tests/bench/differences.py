"""Write the paired differences that tests/bench/gates.py draws from: of two runs that differ by their seed alone.

    remint retrain && remint retrain --set seed=43    # in one clone; the gates of the second compare the two
    python tests/bench/differences.py CLONE           # writes tests/bench/paired_differences.json

Candidate and production on the same held-out samples: the candidate's numbers are the newest tag's, production's those
that the gates took again on the candidate's scenes, in `.remint/evaluations/`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from flows.release.gates.compare import Samples, pair, read_samples

OUT = Path(__file__).with_name("paired_differences.json")
ABOUT = "candidate - production per held-out scene, of two default runs whose seeds are 42 and 43; {tag}"
# evaluation, section of its file, metric, decimals
WANTED = (
    ("evaluate@tokenizer", "", "psnr", 4),
    ("evaluate@tokenizer", "", "ssim", 6),
    ("evaluate@depth", "teacher", "delta1", 6),
    ("evaluate@depth", "small", "delta1", 6),
)


def candidate(clone: Path, tag: str, stage: str) -> Path:
    """per_sample.parquet of a tagged run, in the clone's DVC cache."""
    shown = subprocess.run(["git", "show", f"{tag}:dvc.lock"], cwd=clone, check=True, capture_output=True, text=True)
    outs = {out["path"]: out["md5"] for out in yaml.safe_load(shown.stdout)["stages"][stage]["outs"]}
    (oid,) = [oid for path, oid in outs.items() if path.endswith("per_sample.parquet")]
    return clone / ".dvc/cache/files/md5" / oid[:2] / oid[2:]


def production(clone: Path, like: Path) -> Path:
    """per_sample.parquet of production's evaluation with the same columns and number of rows."""
    wanted = _form(like)
    (found,) = [path for path in clone.glob(".remint/evaluations/*/per_sample.parquet") if _form(path) == wanted]
    return found


def _form(path: Path) -> tuple[list[str], int]:
    table = pq.read_table(path)
    return table.column_names, table.num_rows


def main() -> None:
    clone = Path(sys.argv[1])
    tags = subprocess.run(["git", "tag", "--list", "run/*"], cwd=clone, check=True, capture_output=True, text=True)
    tag = tags.stdout.split()[-1]
    pools: dict[str, list[float]] = {}
    for stage, section, metric, decimals in WANTED:
        ours = candidate(clone, tag, stage)
        values: tuple[Samples, Samples] = (read_samples(ours, section), read_samples(production(clone, ours), section))
        differences = pair(*values, metric).differences
        centred = differences - differences.mean()  # the two teachers and the two students each have a mean of theirs
        pools.setdefault(metric, []).extend(round(float(value), decimals) for value in centred)
    OUT.write_text(json.dumps({"about": ABOUT.format(tag=tag), **pools}) + "\n")
    print({metric: len(values) for metric, values in pools.items()})


if __name__ == "__main__":
    main()
