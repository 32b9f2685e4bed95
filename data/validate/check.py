"""Stage `validate`: check both data sets before anything is trained on them, and write pages that show it.

    python -m data.validate.check --scenes artifacts/scenes --photos artifacts/photos --out artifacts/validate

Writes report.json, statistics.json (what a later version is compared with), figures/, docs/index.html and, if no
critical expectation failed, approved.json: the digests of the two data sets, on which training depends. It changes
with the data alone, so that another threshold or a new previous version trains nothing again.
A failed critical expectation ends the stage with exit code 2, naming expectation, column and rows; warnings are
printed. Takes about seven seconds, most of them to import Great Expectations.

Drift needs a previous version: copy its statistics.json to data/validate/baseline.json, commit it and set
`validate.previous: data/validate/baseline.json` in params.yaml.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from data.core import entry, manifest, params
from data.core.params import UserError
from data.validate import docs, drift, duplicates, figures, integrity, suites
from data.validate.params import Validate
from data.validate.run import Outcome, Suite, run

APPROVED = "approved.json"


def load(folder: Path) -> pd.DataFrame:
    """The manifest of a data folder with the columns that checks derive: digests on disk, nearest twin."""
    frame = manifest.read(folder).to_pandas()
    texts = frame.select_dtypes(["object", "string"]).columns
    frame[texts] = frame[texts].astype(object)  # plain str objects, whose type Great Expectations can check
    frame["sha256_on_disk"] = integrity.digests(folder, frame)
    return frame.join(duplicates.distances(frame))


def digest(frame: pd.DataFrame) -> str:
    """SHA-256 over names, bytes and split of all samples: what an approval is valid for."""
    lines = frame["key"] + " " + frame["sha256"] + " " + frame["split"]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def class_names(folder: Path) -> list[str]:
    """The classes a data folder says it has, so that a class without any sample is noticed."""
    path = folder / "info.json"
    try:
        return list(json.loads(path.read_text()).get("classes", []))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the stage that writes {folder} again") from None


def plan(
    scenes: pd.DataFrame, photos: pd.DataFrame, classes: list[str], moved: pd.DataFrame, p: Validate
) -> list[Suite]:
    """The suites to run; drift only where there is a previous version."""
    found = [
        Suite("scenes", scenes, suites.of_manifest(scenes, p) + suites.of_scenes(p)),
        Suite("photos", photos, suites.of_manifest(photos, p) + suites.of_photos()),
        Suite("classes", suites.classes(scenes, classes), suites.of_classes(p)),
    ]
    return [*found, Suite("drift", moved, suites.of_drift(p))] if len(moved) else found


def report(done: list[tuple[Any, list[Outcome]]], facts: list[tuple[str, str]]) -> dict[str, Any]:
    """The content of report.json."""
    outcomes = [one for _, found in done for one in found]
    failed = [one for one in outcomes if not one.success]
    return {
        "success": not any(one.severity == "critical" for one in failed),
        "expectations": len(outcomes),
        "critical_failed": sum(one.severity == "critical" for one in failed),
        "warnings": sum(one.severity != "critical" for one in failed),
        "facts": dict(facts),
        "suites": [
            {
                "suite": found[0].suite,
                "success": all(one.success for one in found),
                "results": [{**vars(one), "rows": [list(row) for row in one.rows]} for one in found],
            }
            for _, found in done
        ],
    }


def describe(scenes: pd.DataFrame, photos: pd.DataFrame, moved: pd.DataFrame, previous: Any) -> list[tuple[str, str]]:
    """A few lines on what was checked, for the first page and the report."""

    def counts(frame: pd.DataFrame) -> str:
        return f"{(frame['split'] == 'train').sum()} to train on, {(frame['split'] == 'val').sum()} held out"

    shifts = ", ".join(f"{key} {psi:.3f}" for key, psi in zip(moved["key"], moved["psi"], strict=True))
    compared = shifts or "nothing in common with the previous version" if previous else "no previous version"
    return [("scenes", counts(scenes)), ("photos", counts(photos)), ("drift (PSI)", compared)]


def check(scenes_folder: Path, photos_folder: Path, out: Path, p: Validate, previous: str | None) -> None:
    """Run all suites, write the outputs, then raise UserError if a critical expectation failed."""
    scenes, photos = load(scenes_folder), load(photos_folder)
    now = drift.statistics({"scenes": scenes, "photos": photos})
    moved = drift.compare(now, drift.read(previous) if previous else {})
    (out / APPROVED).unlink(missing_ok=True)
    done = run(plan(scenes, photos, class_names(scenes_folder), moved, p))
    facts = describe(scenes, photos, moved, previous)

    (out / "figures").mkdir(parents=True, exist_ok=True)
    figures.statistics(scenes, photos).save(out / "figures" / "statistics.png")
    docs.write(out / "docs", done, facts)
    _write_json(out / "statistics.json", now)
    found = report(done, facts)
    _write_json(out / "report.json", found)

    failed = [one for _, outcomes in done for one in outcomes if not one.success]
    for one in failed:
        if one.severity != "critical":
            sys.stderr.write(f"warning: {one.sentence()}\n")
    critical = [one.sentence() for one in failed if one.severity == "critical"]
    if critical:
        raise UserError("\n       ".join([*critical, f"see {out / 'docs' / 'index.html'}"]))
    _write_json(out / APPROVED, {"scenes": digest(scenes), "photos": digest(photos)})
    sys.stderr.write(
        f"validate: {found['expectations'] - found['warnings']} of {found['expectations']} expectations hold, "
        f"{found['warnings']} warnings; drift: {facts[-1][1]}; pages: {out / 'docs' / 'index.html'}\n"
    )


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", required=True, type=Path)
    parser.add_argument("--photos", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--previous", help="statistics.json of an earlier version (default: validate.previous)")
    arguments = parser.parse_args()
    p = params.load(Validate, "validate")
    check(arguments.scenes, arguments.photos, arguments.out, p, arguments.previous or p.previous)


if __name__ == "__main__":
    entry.run(main)
