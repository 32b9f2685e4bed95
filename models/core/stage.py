"""A model stage's surroundings: arguments in, model, metrics, curves and figures out, tracking beside it."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.core import checkpoint_store, partitions, portable
from data.core.digests import digest
from data.core.params import UserError
from models.core import saved
from models.tracking import training_run


@dataclass(frozen=True)
class Run:
    """One execution of a stage. What it saves holds nothing that differs between two runs."""

    stage: str
    out: Path
    tracker: training_run.Tracker
    checkpoint: str | None  # where it keeps unfinished work, named by the digest of everything the stage depends on
    silent: bool = False  # another rank speaks
    when_done: list[Callable[[], None]] = field(default_factory=list)  # called once all outputs are written

    def say(self, text: str) -> None:
        if self.silent:
            return
        print(f"{self.stage}  {text}", flush=True)  # noqa: T201 - the flow and the user read a stage's output

    def shards(self, count: int) -> partitions.Shards:
        """The stage's shards, kept while it is unfinished."""
        made = partitions.Shards(self.checkpoint, count, self.out)
        self.when_done.append(made.forget)
        return made

    def save_model(self, state: dict[str, Any], config: dict[str, Any]) -> Path:
        """Write `model/model.safetensors` and `model/config.json`; returns the folder."""
        saved.write(self.out / "model", state, config)
        return self.out / "model"

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json ({name: number}, or one level of sections) and send the numbers to the tracking."""
        self.out.mkdir(parents=True, exist_ok=True)
        plain = _plain(metrics)
        (self.out / "metrics.json").write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n")
        self.tracker.results(plain)

    def save_curves(self, rows: list[dict[str, Any]]) -> None:
        """Write curves.csv: `step` and every loss, a row per logged step; empty where a row lacks a value."""
        self.out.mkdir(parents=True, exist_ok=True)
        names = list(dict.fromkeys(name for row in rows for name in row))
        with (self.out / "curves.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)

    def figure(self, name: str) -> Path:
        """Where to save a picture: out/figures/NAME."""
        folder = self.out / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


@contextmanager
def open(stage: str, inputs: dict[str, Path], out: Path, params: Any) -> Iterator[Run]:
    """Set up a stage: check its inputs, empty `out`, set the thread count, start tracking; log figures at the end.

    In a process that makes a part of it (`data.core.partitions`) or is not the first rank (`models.core.ranks`) nothing
    is written or tracked, and the block ends when its share is done.
    """
    from models.core import device, ranks

    for name, path in inputs.items():
        if not path.exists():
            raise UserError(f"--{name} {path} does not exist; run the stage that makes it first (dvc repro {stage})")
    settle(getattr(params, "threads", None))
    digests = {name: digest(path) for name, path in inputs.items()}
    values = {**_flat(dataclasses.asdict(params)), "portable": portable.active()}
    values |= {key: device.precision(value) for key, value in values.items() if key.split(".")[-1] == "precision"}
    checkpoint = checkpoint_store.address(stage, values, digests, ("data", "models"))
    tags = {"stage": stage, **{f"input.{k}": v for k, v in digests.items()}}
    if partitions.asked() or ranks.rank() > 0:
        with suppress(partitions.Done):
            yield Run(stage, out, training_run.NullTracker(), checkpoint, silent=ranks.rank() > 0)
        return
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with training_run.open_run(stage, values, tags) as tracker:
        run = Run(stage, out, tracker, checkpoint)
        yield run
        for path in sorted((out / "figures").glob("*.png")):
            tracker.figure(path)
        weights = out / "model" / "model.safetensors"
        tracker.tags({"output": digest(out), **({"weights": digest(weights)} if weights.exists() else {})})
        for call in run.when_done:
            call()


def settle(threads: int | None) -> None:
    """Let torch reckon alike in every run."""
    import torch

    from models.core import products

    if portable.active():
        products.by_openblas()
    if threads:
        torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it products on a GPU differ from run to run
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import the compiler: 1.3 s


def arguments(doc: str | None, *names: str) -> argparse.Namespace:
    """Parse --NAME PATH for each input and --out PATH; `doc` (the module's docstring) is the help text."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in (*names, "out"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    return parser.parse_args()


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers with seven significant digits: what a metric means does not lie beyond."""
    return {k: _plain(v) if isinstance(v, dict) else float(f"{float(v):.7g}") for k, v in values.items()}
