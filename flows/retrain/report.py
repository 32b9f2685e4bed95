"""The report of one run: the page of `models.report` with the run's stages, verdicts and versions added."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session

from data.core import digests
from data.core.params import UserError
from flows.catalogue import costs, database
from flows.catalogue.registered import Registered
from flows.catalogue.schema import ModelVersion
from flows.pipeline.graph import Stage
from flows.pipeline.run import RunInfo, StageResult, headline
from flows.pipeline.store import Store
from flows.release.gates import judge
from flows.release.gates.decision import Decision, cell, interval
from flows.release.pointers import title
from flows.release.promote import FamilyOutcome
from flows.settings import Settings
from flows.show import cost
from flows.show.lineage import picture
from flows.show.lineage.down import lineage_of
from models.metrics import METRICS
from models.report import collect, page
from models.report.charts import number
from models.report.facts import Compared, Cost, Rule, RunFacts, StageRow, Verdict, Version
from models.report.graph import Graph

if TYPE_CHECKING:
    from flows.release.outcome import Release


DOCS = "data-docs"


def write(
    run: RunInfo,
    results: Sequence[StageResult],
    made: Release,
    settings: Settings,
) -> Path:
    """Write the run's report.html into its folder and return the path.

    Raises UserError when the run's workspace holds no artifacts or the page cannot be written.
    """
    with closing(Store(run.workspace)) as store:
        stages = store.stages
    facts = facts_of(run, stages, results, made, datetime.now(UTC))
    facts = replace(facts, lineage=draw_lineage(made.registered, settings), cost=cost_of(run, settings))
    material = collect.collect(run.workspace / "artifacts", run.workspace)
    facts = replace(facts, docs=keep_docs(run, settings.runs / run.id))
    return page.write(page.render(material, facts), settings.runs / run.id)


def keep_docs(run: RunInfo, folder: Path) -> str:
    """Put validation's Data Docs beside the report, as the worktree goes with the run; returns their first page."""
    made = run.workspace / "artifacts" / "validate" / "docs"
    if not (made / "index.html").exists():
        return ""
    shutil.copytree(made, folder / DOCS, dirs_exist_ok=True)
    return f"{DOCS}/index.html"


def facts_of(
    run: RunInfo,
    stages: Sequence[Stage],
    results: Sequence[StageResult],
    made: Release,
    ended: datetime,
) -> RunFacts:
    """What the page says about a run, from values alone but for the digest of the workspace's dvc.lock."""
    candidates = {one.model.name: one for one in made.registered}
    by_family = {outcome.family: outcome for outcome in made.outcomes}
    return RunFacts(
        run_id=run.id,
        commit=run.commit,
        tag=run.tag,
        lock_digest=_digest(run.workspace / "dvc.lock"),
        seconds=(ended - run.started).total_seconds(),
        graph=Graph(tuple(s.name for s in stages), tuple((up, s.name) for s in stages for up in s.upstream)),
        stages=tuple(StageRow(r.name, r.action, r.seconds, _headline(r.metrics)) for r in results),
        verdicts=tuple(_verdict(one, candidates[one.model], made, by_family.get(one.family)) for one in made.decisions),
        releases=tuple(_released(outcome, made.decisions) for outcome in made.outcomes),
        versions=tuple(_version(one) for one in made.registered),
    )


def _verdict(decision: Decision, candidate: Registered, made: Release, outcome: FamilyOutcome | None) -> Verdict:
    """A decision with every metric of the candidate that stands for all classes, against production's.

    What a version is said to be is its own: where the log of releases has it, whoever put it there.
    """
    met = made.before.get(decision.model)
    known = {number.metric: number for number in made.compared.get(decision.model, ())}
    there = outcome.release.members if outcome and outcome.release else ()
    produces = any((one.model, one.version) == (decision.model, decision.version) for one in there)
    shown = [(name, candidate.metrics[name], known.get(name)) for name in METRICS if name in candidate.metrics]
    return Verdict(
        model=decision.model,
        version=decision.version,
        state=_state(decision, produces),
        produces=produces,
        reason="" if decision.failed else decision.reason,  # the rules below say what failed
        replaces=met.version if met else None,
        compared=tuple(
            Compared(name, value, now.before if now else None, now.says if now else "") for name, value, now in shown
        ),
        rules=tuple(_rule(rule) for rule in decision.rules),
    )


def _state(decision: Decision, produces: bool) -> str:
    if produces:
        return "in production" if decision.unchanged else "in production now"
    return {"waiting": "waits for approval", "refused": "refused"}.get(decision.verdict, "not released")


def _released(outcome: FamilyOutcome, decisions: Sequence[Decision]) -> str:
    """What became of a family, in a line; what its models lack is said at each of them."""
    own = [one for one in decisions if one.family == outcome.family]
    held = [f"{one.model} v{one.version}" for one in own if one.verdict == outcome.state]
    if outcome.state not in ("refused", "waiting") or not held:
        return str(outcome)
    words = "is refused" if outcome.state == "refused" else "waits for approval"
    stands = f"; {title(outcome.release)} stays in production" if outcome.release else ""
    return f"{outcome.family}: not released, for {' and '.join(held)} {words}{stands}"


def _rule(rule: judge.Rule) -> Rule:
    """A rule for the page: its candidate's side in words, and the limit where the rule's name does not say it."""
    said = rule.candidate
    if rule.difference is not None:
        said = f"{cell(rule.candidate)}, {interval(rule.difference, rule.low, rule.high)}"
        said += f" over {rule.samples} samples" if rule.samples else ""
    elif isinstance(said, int):
        said = cell(said)
    if rule.note:
        said = f"{cell(said)} ({rule.note})"
    told = rule.passed and (rule.production is None or rule.difference is not None)
    return Rule(rule.name, rule.passed, said, None if told or rule.name.startswith("required") else rule.limit)


def _version(one: Registered) -> Version:
    data = {name.removeprefix("data."): digest for name, digest in one.tags.items() if name.startswith("data.")}
    return Version(
        model=one.model.name,
        version=one.version,
        weights=one.weights,
        parents=tuple(one.parents.items()),
        data=tuple(data.items()),
        new=one.new,
    )


def draw_lineage(registered: Sequence[Registered], settings: Settings) -> Markup:
    """What the run's models came from, drawn; a version that the catalogue does not know is left out."""
    catalogue = database.open(settings)
    with catalogue.read() as session:
        versions = [version for one in registered if (version := _recorded(session, one)) is not None]
        lineages = [lineage_of(session, settings.root, version) for version in versions]
    catalogue.close()
    return picture.both(lineages)


def cost_of(run: RunInfo, settings: Settings) -> Cost | None:
    """What the run cost as the catalogue has it, None if it does not know the run."""
    catalogue = database.open(settings)
    with catalogue.read() as session:
        found = costs.of_runs(session, [run.id])
    catalogue.close()
    if not found:
        return None
    lines = [(line[0], *line[2:]) for line in cost.table(found[0], cost.Prices.of(settings))]  # actions are above it
    return Cost(lines[0], tuple(lines[1:-1]), lines[-1])


def _recorded(session: Session, one: Registered) -> ModelVersion | None:
    return session.scalar(
        select(ModelVersion).where(ModelVersion.name == one.model.name, ModelVersion.number == one.version)
    )


def _headline(metrics: Mapping[str, float]) -> str:
    """A stage's most telling metric in words: "teacher delta1 0.841"."""
    key = headline(metrics)
    return f"{key.replace('.', ' ')} {number(metrics[key])}" if key else ""


def _digest(path: Path) -> str:
    try:
        return digests.sha256(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; the run has recorded nothing yet") from None
