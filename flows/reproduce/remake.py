"""Run the stages that made a model again: at their commit, in a worktree with a DVC cache of its own that starts empty.

    with remake.prepared(settings, checkout, targets, "scratch") as job:
        outcome = remake.run(job, progress)

What a killed reproduction finished lies in `reproductions/<id>` of the home: its own cache, run cache and checkpoints,
never those of the original run. The next one of the same commit in the same environment goes on from there. Where
workers run the stages (REMINT_STAGES), `flows.reproduce.workers` says where that lies.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.core.files import write_whole
from data.core.params import UserError
from flows import repository
from flows import settings as settings_
from flows.pipeline import accepted, environment, graph, parameters, plan, workspace
from flows.pipeline.environment import Environment
from flows.pipeline.graph import Stage
from flows.pipeline.job import Again, Job
from flows.pipeline.lock import Entry, read_lock
from flows.pipeline.plan import Plan, Step
from flows.pipeline.run import RunInfo
from flows.pipeline.store import Store, as_recorded
from flows.reproduce import originals
from flows.reproduce.target import Target
from flows.retrain.progress import Progress
from flows.server import connect
from flows.settings import Settings

if TYPE_CHECKING:
    from flows.release.outcome import RunOutcome
    from flows.workers.dispatch import Dispatcher

Source = Literal["scratch", "inputs"]


@dataclass(frozen=True)
class Remake(Job):
    """A job that runs recorded stages again."""

    targets: tuple[Target, ...] = ()
    source: Source = "scratch"
    lock: Mapping[str, Entry] = field(default_factory=dict)  # the stages of the commit's dvc.lock
    altered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by stage, see `_altered`
    then: Mapping[str, Environment] = field(default_factory=dict)  # by stage, where the run says that it ran
    here: Environment | None = None  # where the stages run now; None: on workers, each in its own

    @property
    def folder(self) -> Path:
        """What stays of the reproduction: its logs, and what it finished for as long as it is not at its end."""
        return self.settings.home / "reproductions" / self.run.id

    def ran(self, outcome: RunOutcome | None = None) -> dict[str, Environment]:
        """Where each stage ran now; of stages on workers only that of those which have run is known."""
        if self.here is not None:
            return {stage.name: self.here for stage in self.stages}
        results = outcome.results if outcome else {}
        known = {name: environment.parse(one.environment) for name, one in results.items() if one.environment}
        return {stage.name: known[stage.name] for stage in self.stages if stage.name in known}

    def differences(self, ran: Mapping[str, Environment]) -> tuple[str, ...]:
        """In what these environments are not the original's, of which stages if not of all; none is known where the
        run did not note its own."""
        found: dict[str, list[str]] = {}
        for stage, now in ran.items():
            for difference in environment.differences(self.then[stage], now) if stage in self.then else ():
                found.setdefault(str(difference), []).append(stage)
        every = len(ran)
        return tuple(said if len(of) == every else f"{said} ({', '.join(of)})" for said, of in found.items())


@contextmanager
def prepared(settings: Settings, targets: Sequence[Target], source: Source) -> Iterator[Remake]:
    """A reproduction of models that one run made, ready to start; UserError where it could not go well."""
    identifier = f"reproduce-{targets[0].commit[:12]}" + (f"-{targets[0].model.name}" if source == "inputs" else "")
    _space(settings)
    surroundings = settings_.child_environment(settings) | {
        "DVC_SITE_CACHE_DIR": str(workspace.index_folder(settings.worktrees / identifier))
    }
    os.environ.update(surroundings)  # DVC and Prefect take their settings from this process's environment
    with ExitStack() as stack:
        try:
            root = stack.enter_context(workspace.opened(settings, targets[0].commit, identifier))
        except FileExistsError:  # the mark of a living one
            raise UserError(f"{targets[0].title} is being reproduced here already; wait for it to end") from None
        store = Store(root, accepted.remote(settings))
        stack.callback(store.close)
        yield _job(settings, root, store, tuple(targets), source, surroundings)


def run(job: Remake, progress: Progress, workers: Dispatcher | None = None) -> RunOutcome:
    """Run the job's stages as a Prefect flow; a stage that fails is in the outcome."""
    with connect.borrowed(job.settings, job.environment) as api:
        os.environ["PREFECT_API_URL"] = api
        from flows.retrain import flow  # not before: Prefect reads the environment when it is imported

        return flow.conduct("reproduce", job, progress, lambda: None, lambda *_: None, workers)


def forget(job: Remake) -> None:
    """Remove what a reproduction needed to go on: it is at its end. Its logs stay."""
    for name in ("cache", "checkpoints", "environment.json"):
        path = job.folder / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _job(
    settings: Settings,
    root: Path,
    store: Store,
    targets: tuple[Target, ...],
    source: Source,
    surroundings: dict[str, str],
) -> Remake:
    target, identifier = targets[0], root.name
    then = environment.of_stages(root, target.commit, [stage.name for stage in store.stages])
    here = _here(root, target, then) if settings.stages == "here" else None
    stages = _chosen(store.stages, [one.model.stage for one in targets], source)
    lock = read_lock(root)
    if missing := [stage.name for stage in stages if stage.name not in lock]:
        raise UserError(
            f"the dvc.lock of {target.tag} records no {', '.join(missing)}: nothing to compare with; name another"
        )
    altered = _altered(stages, store, lock, target)
    folder, again = settings.home / "reproductions" / identifier, None
    if here is None:
        given = originals.given(store, stages, target) if source == "inputs" else {}
        again = Again(_name(target, source), given, {name: where.variables for name, where in then.items()})
        folder.mkdir(parents=True, exist_ok=True)
    else:
        if source == "inputs":
            originals.put_inputs(store, stages, target)
        _begin(folder, here)
        _own_cache(root, folder / "cache")
    (root / "dvc.lock").unlink()  # nothing is known to be done
    return Remake(
        settings=settings,
        checkout=repository.find(settings.root),
        run=_run_info(identifier, root, target),
        stages=stages,
        plan=Plan(tuple(Step(stage.name, "run") for stage in stages)),
        changes={},
        environment={
            **environment.surroundings(surroundings, here.variables if here else None),
            "REMINT_RUN": identifier,
            "REMINT_CHECKPOINTS": str(folder / "checkpoints"),
            "MLFLOW_TRACKING_URI": "",  # not among the runs that people compare
        },
        store=store,
        again=again,
        targets=targets,
        source=source,
        lock=lock,
        altered=altered,
        then=then,
        here=here,
    )


def _here(root: Path, target: Target, then: Mapping[str, Environment]) -> Environment:
    """Where stages run on this machine: thread counts and such are set as they were; what cannot be set is told."""
    own = then.get(target.model.stage)
    here = environment.describe(root, environment.surroundings(os.environ, own.variables if own else None))
    _require_lock(target, own, here)
    return here


def _name(target: Target, source: Source) -> str:
    """What names a reproduction's attempts and checkpoints, on every machine the same."""
    of = f"-{target.model.name}" if source == "inputs" else ""
    return f"reproduce{re.sub(r'[^A-Za-z0-9_@-]', '-', of)}-{target.commit[:16]}"


def _run_info(identifier: str, root: Path, target: Target) -> RunInfo:
    return RunInfo(
        id=identifier,
        tag=target.tag,
        commit=target.commit,
        base_commit=target.commit,
        workspace=root,
        dirty=False,
        parameters=parameters.digest(root),
        started=datetime.now(UTC).replace(microsecond=0),
        trigger="reproduce",
    )


def _chosen(stages: Sequence[Stage], wanted: Sequence[str], source: Source) -> tuple[Stage, ...]:
    """The models' stages, and from scratch everything before them; each waits only for what runs too."""
    names = set(wanted) | (graph.upstream(stages, wanted) if source == "scratch" else set())
    chosen = [stage for stage in stages if stage.name in names]
    return tuple(replace(s, upstream=tuple(name for name in s.upstream if name in names)) for s in chosen)


def _altered(
    stages: Sequence[Stage], store: Store, lock: Mapping[str, Entry], target: Target
) -> dict[str, tuple[str, ...]]:
    """In what the commit's stages are not those that its dvc.lock records: then other bytes are to be expected.

    UserError for an input that is not in the repository and not here, as a folder of photographs.
    """
    outs = [out for stage in store.stages for out in stage.outs]
    found: dict[str, tuple[str, ...]] = {}
    for stage in stages:
        sources = [dep for dep in stage.deps if not any(plan.overlap(dep, out) for out in outs)]
        contents = {dep: store.content(stage, dep, {}) for dep in sources}
        if gone := [dep for dep, content in contents.items() if content is None]:
            raise UserError(
                f"{target.tag} was made from {gone[0]}, which is not here; stage {stage.name} needs it; put it there"
            )
        said = tuple(plan.differences(stage, as_recorded(lock[stage.name]), store.params(stage), contents))
        found |= {stage.name: said} if said else {}
    return found


def _require_lock(target: Target, then: Environment | None, here: Environment) -> None:
    """UserError where other versions are installed than made the model: they would prove nothing."""
    allowed = dict(then.unlocked) if then else {}
    wrong = [f"{name} {said}" for name, said in here.unlocked.items() if allowed.get(name) != said]
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"{target.tag} was made with other packages: {'; '.join(wrong[:3])}{rest}. Install what it was made with: "
            f"git show {target.tag}:{environment.LOCK} > wanted.lock && python -m venv .venv-{target.commit[:7]} && "
            f".venv-{target.commit[:7]}/bin/pip install -r wanted.lock && .venv-{target.commit[:7]}/bin/pip install "
            f"--no-deps -e . and use its remint"
        )


def _begin(folder: Path, here: Environment) -> None:
    """A folder to work in; what an earlier attempt finished stays if it was made in this same environment."""
    note = folder / "environment.json"
    if not note.exists() or note.read_bytes() != environment.text(here).encode():
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(note, environment.text(here).encode())


def _own_cache(root: Path, cache: Path) -> None:
    """Point the worktree's DVC at another cache than the one that has the original's outputs."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo, repo.config.edit("local") as config:
        config["cache"] = {**config.get("cache", {}), "dir": str(cache)}


def _space(settings: Settings) -> None:
    from flows.retrain.launch import LEAST_SPACE

    settings.home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.home).free
    if free < LEAST_SPACE:
        raise UserError(
            f"{settings.home} has {free >> 20} MB left; a reproduction needs {LEAST_SPACE >> 20} MB: free some space"
        )
