"""What a run's workspace says about the data it was made from: samples, bytes, photographs, validation's verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.pipeline.graph import Stage
from flows.pipeline.lock import Entry
from flows.pipeline.run import BROKEN, StageResult

VALIDATE, REPORT = "validate", Path("artifacts/validate/report.json")
PHOTOGRAPH = "^[0-9a-f]{12}-"  # how keys of tiles begin: data.photos.collect names them by the photograph's bytes


@dataclass(frozen=True)
class Dataset:
    """The output of a data stage, as it lies in a workspace."""

    stage: str
    digest: str  # as `flows.release.registry.data_of` has it
    rows: int
    bytes: int
    verdict: str  # "passed", "failed", "unchecked"
    photographs: Mapping[str, str] = field(default_factory=dict)  # id -> file name in the source


def of_run(
    workspace: Path, stages: Sequence[Stage], results: Mapping[str, StageResult], lock: Mapping[str, Entry]
) -> list[Dataset]:
    """The data of a run: what its first stages made. A stage that did not end well made none."""
    names = [stage.name for stage in stages if not stage.upstream]
    made = [name for name in names if name in lock and _is_done(results.get(name))]
    verdicts = _verdicts(workspace, names, results)
    return [_dataset(workspace, name, lock[name].get("outs", []), verdicts[name]) for name in made]


def _is_done(result: StageResult | None) -> bool:
    return result is not None and result.action not in BROKEN


def _dataset(workspace: Path, stage: str, outs: Sequence[Mapping[str, Any]], verdict: str) -> Dataset:
    rows, photographs = _samples([workspace / out["path"] / "manifest.parquet" for out in outs])
    digest, size = ",".join(out["md5"] for out in outs), sum(out.get("size", 0) for out in outs)
    return Dataset(stage, digest, rows, size, verdict, photographs)


def _samples(manifests: Sequence[Path]) -> tuple[int, dict[str, str]]:
    """The number of samples, and the photographs that they were cut from."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows, photographs = 0, dict[str, str]()
    for path in manifests:
        if path.exists():
            table = pq.read_table(path, columns=["key", "source"])
            rows += table.num_rows
            tiles = table.filter(pc.match_substring_regex(table["key"], PHOTOGRAPH))
            tiles = tiles.set_column(0, "photo", pc.utf8_slice_codeunits(tiles["key"], 0, 12))
            once = tiles.group_by("photo").aggregate([("source", "min")])
            photographs |= dict(zip(once["photo"].to_pylist(), once["source_min"].to_pylist(), strict=True))
    return rows, photographs


def _verdicts(workspace: Path, names: Sequence[str], results: Mapping[str, StageResult]) -> dict[str, str]:
    """What validation found in each data stage's output, also where it stopped the run.

    A failed critical expectation counts for the data of its suite; in a suite about several data sets, for all.
    """
    result, path = results.get(VALIDATE), workspace / REPORT
    if result is None or result.action in ("skipped", "stopped") or not path.exists():
        return dict.fromkeys(names, "unchecked")
    failed = {
        suite["suite"]
        for suite in json.loads(path.read_text())["suites"]
        if any(one["severity"] == "critical" and not one["success"] for one in suite["results"])
    }
    common = failed - set(names)
    return {name: "failed" if name in failed or common else "passed" for name in names}
