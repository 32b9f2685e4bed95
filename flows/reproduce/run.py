"""Reproduce targets: one worktree and one run of the graph for all models that one commit made."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from flows.pipeline.lock import read_lock
from flows.reproduce import expected, prove, record, remake, workers
from flows.reproduce.compare import FAILED, Tolerance
from flows.reproduce.prove import Proof
from flows.reproduce.remake import Remake, Source
from flows.reproduce.target import Target
from flows.retrain.progress import Progress
from flows.settings import Settings
from flows.stage.process import StageFailed


@dataclass(frozen=True)
class Reproduction:
    """What came of making the models of one commit again."""

    proof: Proof
    failures: tuple[StageFailed, ...]
    unrecorded: tuple[str, ...]  # where the verdict could not be noted, and why
    folder: Path  # its logs and proof.json


def groups(targets: Iterable[Target], source: Source) -> list[list[Target]]:
    """Which targets are made in one go: from scratch those of one commit, from their inputs each alone."""
    ordered = sorted(targets, key=lambda target: (target.commit, target.model.name))
    if source == "inputs":
        return [[target] for target in ordered]
    return [list(group) for _, group in groupby(ordered, key=lambda target: target.commit)]


def reproduce(
    settings: Settings, targets: Sequence[Target], source: Source, tolerance: Tolerance, progress: Progress
) -> Reproduction:
    """Make models of one commit again, compare and record. What a failed attempt finished is kept for the next."""
    began = time.monotonic()
    with ExitStack() as stack:
        job, dispatcher = stack.enter_context(remake.prepared(settings, targets, source)), None
        if job.again:
            job, dispatcher = stack.enter_context(workers.ready(job, progress.note))
        for line in _beforehand(job):
            progress.note(line)
        outcome = remake.run(job, progress, dispatcher)
        if dispatcher:
            workers.bring_compared(job, dispatcher)
        made = read_lock(job.run.workspace)
        proof = prove.prove(job, made, outcome, tolerance, time.monotonic() - began)
        job.check()
        unrecorded = record.record(job, made, proof)
        if proof.verdict != FAILED:
            remake.forget(job)
            if dispatcher:
                workers.forget(job, dispatcher)
        return Reproduction(proof, tuple(outcome.failures.values()), tuple(unrecorded), job.folder)


def _beforehand(job: Remake) -> list[str]:
    """What is to be known before anything runs."""
    names = ", ".join(target.title for target in job.targets)
    again = "1 stage" if len(job.stages) == 1 else f"{len(job.stages)} stages"
    lines = [f"{names}: {again} of commit {job.run.commit[:12]} (by {job.targets[0].by}) run again"]
    if job.again:
        pools = sorted({stage.meta.pool for stage in job.stages})
        lines.append(f"on the workers of {' and '.join(f'pool {pool}' for pool in pools)}")
    if any(stage.name not in job.then for stage in job.stages):
        lines.append("the run did not note its environment: equal bytes are proof, other bytes may be the machine's")
    lines += [f"other environment: {difference}" for difference in job.differences(job.ran())]
    if job.here:
        lines.append(expected.beforehand(job.stages, job.then, job.ran()))
    for stage, said in job.altered.items():
        lines.append(f"{stage} of this commit is not what its dvc.lock records: {'; '.join(said)}")
    return lines
