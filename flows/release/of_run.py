"""A run's models: registered, judged by the gates, promoted; at the run's end, or of a recorded run again.

Judged again, a run is held against what is in production now, by the policy that stands now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from flows import repository
from flows.catalogue import journal, record
from flows.pipeline import families, integrity, workspace
from flows.pipeline.families import Model
from flows.pipeline.graph import Stage
from flows.pipeline.integrity import Objects
from flows.pipeline.lock import read_lock
from flows.pipeline.plan import overlap
from flows.pipeline.run import RunInfo, StageResult
from flows.release import projections, promote, recorded, registry, tags
from flows.release.gates import gate, policy
from flows.release.outcome import Release
from flows.release.promote import FamilyOutcome
from flows.release.stores import Stores, who
from flows.settings import Settings
from models.tracking.experiments import GATE

SHARD = ".tar"  # how shards end: what is large, and only stages read it
JUDGEMENT = "judgement"  # kind of a journal entry


def verify_models(settings: Settings, ran: RunInfo, family: str | None) -> None:
    """UserError unless models, evaluations and what else the last steps read are as dvc.lock records them."""
    root = ran.workspace
    models = families.models_of(root)
    own = [one for one in models if family in (None, one.family) and (root / one.path).is_dir()]
    whole, others = _folders(own), _folders(one for one in models if one not in own)

    def wanted(path: str) -> bool:
        if any(overlap(path, folder) for folder in whole):
            return True
        return not path.endswith(SHARD) and (root / path).is_file() and not any(overlap(path, one) for one in others)

    integrity.check(root, read_lock(root), Objects(workspace.cache(settings)), wanted)


def _folders(models: Iterable[Model]) -> set[str]:
    return {folder.as_posix() for one in models for folder in (one.path, one.evaluated)}


def register(
    stores: Stores, ran: RunInfo, stages: Sequence[Stage], results: Sequence[StageResult], family: str | None = None
) -> Release:
    """Register the run's models (of one family), tag their versions in git, and write the run into the catalogue."""
    verify_models(stores.settings, ran, family)
    tagged = tags.tag_versions(stores, registry.register_models(stores, ran, family))
    alarms = record.record_run(stores.catalogue, stores.settings, ran, stages, results, tagged)
    return Release(tuple(tagged), tuple(alarms))


def judge(stores: Stores, ran: RunInfo, made: Release) -> Release:
    """Let the gates decide about the registered versions, against what is in production now."""
    bases = promote.newest(stores, sorted({one.model.family for one in made.registered}))
    judged = gate.decide_run(stores, ran, made.registered, bases)
    said = {(one.model, one.version): {GATE: one.verdict} for one in judged.decisions if not one.unchanged}
    registry.mark(stores.settings, said)
    return replace(made, bases=bases, before=judged.production, compared=judged.compared, decisions=judged.decisions)


def release(stores: Stores, ran: RunInfo, made: Release) -> Release:
    """Promote each family that the gates let pass."""
    person = who(stores.settings)
    outcomes = [
        promote.promote(stores, ran, family, made.registered, made.decisions, base, person, ran.trigger)
        for family, base in made.bases.items()
    ]
    return replace(made, outcomes=tuple(outcomes))


def register_again(stores: Stores, ran: RunInfo, family: str | None = None) -> Release:
    """`register` for a recorded run whose outputs are in place."""
    stages = recorded.stages(ran)
    return register(stores, ran, stages, recorded.results(stores, ran, stages), family)


@contextmanager
def judged_again(stores: Stores, wanted: str | None, family: str | None = None) -> Iterator[tuple[RunInfo, Release]]:
    """A recorded run with its outputs in place, registered and judged; of one family, or of all that it has.

    The policy is that of the commit which is checked out: of the file there that the run's own parameters name. The
    decisions are stored, nothing is released.
    """
    with recorded.opened(stores, recorded.find(stores, wanted), family) as ran:
        policy.lay_out(stores.settings.root, _head(stores), ran.workspace)
        yield ran, judge(stores, ran, register_again(stores, ran, family))


def note_judgement(stores: Stores, ran: RunInfo, made: Release, who: str) -> None:
    """Write into the journal by which policy a run was judged, and what came of it."""
    body = {
        "who": who,
        "policy": policy.policy_file(ran.workspace).as_posix(),
        "commit": _head(stores),
        "verdicts": {f"{one.model}@v{one.version}": one.verdict for one in made.decisions},
    }
    with stores.catalogue.begin() as session:
        journal.append(session, JUDGEMENT, ran.id, body)


def promote_run(stores: Stores, family: str, wanted: str | None, who: str, why: str) -> FamilyOutcome:
    """Promote a family of a run that was recorded before, the newest one without a name, by the present policy."""
    promote.check_family(stores.settings, stores.bucket, family)
    with judged_again(stores, wanted, family) as (ran, made):
        outcome = promote.promote(stores, ran, family, made.registered, made.decisions, made.bases[family], who, why)
    if outcome.state != "standing":
        return outcome
    return replace(outcome, left=tuple(projections.follow(stores, family)))  # it may just have been registered again


def _head(stores: Stores) -> str:
    return repository.git(stores.settings.root, "rev-parse", "HEAD")
