"""Findings of the doctor: what was interrupted, disagrees with the log of releases or was left behind, and its repair.

    for result in doctor.examine(stores, repair=True):
        print(result)

Each check yields findings and changes nothing; a finding brings its repair with it, if there is one. The first of them
completes or undoes interrupted procedures; those that follow see what it left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import select

from data.core.params import UserError
from flows import repository
from flows.catalogue import journal, known_runs, schema
from flows.doctor import registered, stored
from flows.pipeline import run_record, run_tags, workspace
from flows.pipeline.run import run_tag
from flows.release import anchors, pointers, procedure, projections, recorded, tags
from flows.release.stores import Finding, Stores
from flows.retrain import finalise


@dataclass(frozen=True)
class Result:
    """A finding, and what became of it."""

    finding: Finding
    repaired: bool = False
    problem: str = ""  # why its repair failed

    def __str__(self) -> str:
        if self.repaired:
            return f"repaired  {self.finding}"
        return f"wrong     {self.finding}" + (f"; its repair failed: {self.problem}" if self.problem else "")

    def to_json(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        one = self.finding
        about = {"place": one.place, "subject": one.subject, "says": one.says, "should": one.should}
        state = {"repairable": one.repair is not None, "repaired": self.repaired, "problem": self.problem}
        return {**about, "advice": one.advice, **state}


def examine(stores: Stores, repair: bool = False, deep: bool = False) -> Iterator[Result]:
    """Every finding once, repaired if that is wanted and possible; `deep` reads every byte that can be verified."""
    seen = set()
    for check in CHECKS:
        for finding in list(check(stores, deep) if check in DEEP else check(stores)):
            if (finding.place, finding.subject) in seen:
                continue
            seen.add((finding.place, finding.subject))
            yield _repaired(finding) if repair and finding.repair else Result(finding)


def _repaired(finding: Finding) -> Result:
    assert finding.repair is not None
    try:
        finding.repair()
    except Exception as error:
        return Result(finding, False, projections.outage(error))
    return Result(finding, True)


def interrupted(stores: Stores) -> Iterator[Finding]:
    """Promotions and rollbacks whose process is dead."""
    for identifier in procedure.abandoned(stores):
        with stores.catalogue.read() as session:
            row = session.get(schema.Procedure, identifier)
            what = f"{row.kind} to {row.family} #{row.number}" if row else identifier
        yield Finding("procedure", what, "interrupted", "ended", partial(procedure.resume, stores, identifier))


def anchored(stores: Stores) -> Iterator[Finding]:
    """Pointers that are gone or otherwise than the journal has them; one that is gone is written again."""
    for family in anchors.families(stores.bucket, stores.catalogue):
        yield from anchors.contradictions(stores.bucket, family, anchors.written(stores.catalogue, family))


def accept(stores: Stores, family: str, number: int) -> None:
    """Take a release into the journal that this catalogue did not make; UserError if it is not so."""
    log = pointers.log(stores.bucket, family)
    for pointer in anchors.foreign(anchors.written(stores.catalogue, family), log):
        if pointer.number == number:
            projections.remember(stores, pointer)
            return
    raise UserError(f"{family}@{number} is no release of which the catalogue never heard; remint history {family}")


def releases(stores: Stores, deep: bool = False) -> Iterator[Finding]:
    """The log of releases, its bundles, and every place that should follow it."""
    for family in anchors.families(stores.bucket, stores.catalogue):
        known = anchors.written(stores.catalogue, family)
        wrong = anchors.contradictions(stores.bucket, family, known)
        try:
            log = pointers.log(stores.bucket, family)
        except UserError as error:
            yield Finding("bucket", f"log of {family}", f"broken: {error}", "whole")
            continue
        broken = list(stored.bundles(stores, log, deep))
        yield from broken
        if log and log[-1] in anchors.foreign(known, log):
            wrong.append(anchors.stranger(log[-1]))
            yield wrong[-1]
        for name, compare in projections.PLACES.items():
            if wrong:
                break  # no place follows what the catalogue contradicts
            if any(finding.repair is None for finding in broken) and name == "git":
                continue  # bundles say on which commit a version's tag belongs
            try:
                yield from compare(stores, family, log)
            except Exception as error:
                yield Finding(name, family, f"not to be asked: {projections.outage(error)}", "there")


def chain(stores: Stores) -> Iterator[Finding]:
    """The journal's digests."""
    seen = stores.settings.home / "journal-end"  # of the catalogue: its own note of that can be written again, too
    with stores.catalogue.read() as session:
        wrong = journal.verify(session, seen.read_text() if seen.exists() else "")
        end = journal.end(session)
    if not wrong and end:
        seen.write_text(end)
    for number, words in enumerate(wrong, 1):
        yield Finding("catalogue", f"journal ({number})", words, "as it was written", None, "compare it with a backup")


def tagged(stores: Stores) -> Iterator[Finding]:
    """Tags of runs and versions that are gone or were moved; they are what reproduction starts from."""
    with stores.catalogue.read() as session:
        runs = session.execute(select(schema.Run.tag, schema.Run.commit).where(schema.Run.state == "done")).all()
        version = schema.ModelVersion
        wanted = select(version.tag, version.name, version.number, version.weights, schema.Run.tag, schema.Run.commit)
        versions = session.execute(wanted.join(schema.Run, version.run_id == schema.Run.id)).all()
    there = tags.read(stores.settings.root)
    said = {tag: (commit, f"Run {tag.removeprefix('run/')}") for tag, commit in runs}
    said |= {tag: (at, tags.message(name, n, run, weights)) for tag, name, n, weights, run, at in versions if tag}
    for tag, (commit, message) in sorted(said.items()):
        if tag and there.get(tag) != commit:
            yield tags.tag_finding(stores.settings.root, tag, message, there.get(tag), commit)


def strangers(stores: Stores) -> Iterator[Finding]:
    """Tags below `run/` that are no run's: nothing starts from them, and other programs list them as runs."""
    known, root = known_runs.Runs(stores.settings), stores.settings.root
    for tag, wrong in run_tags.strangers(root).items():
        yield Finding("git", tag, wrong, "", None, f"git tag -d '{tag}'")
    if repository.git(root, "rev-parse", "--is-shallow-repository", check=False) == "true":
        return  # what a run's commit follows is not here
    noted = recorded.here(stores.settings)  # among them those whose note is damaged, see `unfinished`
    unheard = [one for one in sorted(run_tags.commits(root).items(), reverse=True) if one[0] not in noted]
    unknown = [one for one in unheard if known.known(one[0]) is None]
    for identifier, commit in unknown[: known_runs.VERIFIED]:
        wrong, tag = next(known.malformed(identifier, commit), ""), run_tag(identifier)
        if wrong:
            yield Finding("git", tag, f"no run: {wrong}", "", None, f"git tag -d '{tag}'")


def unfinished(stores: Stores) -> Iterator[Finding]:
    """Runs that were recorded and whose models were never registered and judged."""
    damaged: dict[str, UserError] = {}
    found = run_record.unfinished(stores.settings, damaged.__setitem__)
    for name, error in damaged.items():
        yield Finding("run", name, "noted in a file that is damaged", "", None, str(error))
    for left in found:
        repair = partial(finalise.complete, stores, left)
        yield Finding("run", left.run.id, "recorded, and stopped before its models were released", "finished", repair)


def worktrees(stores: Stores) -> Iterator[Finding]:
    """Worktrees whose run was killed."""
    chosen = stores.settings

    def remove(name: str) -> None:
        with workspace.exclusive(chosen):
            for folder in workspace.dead(chosen):
                if folder.name == name:
                    workspace.remove_dead(chosen, folder)

    with workspace.exclusive(chosen):
        names = [folder.name for folder in workspace.dead(chosen)]
    for name in names:
        yield Finding("worktree", name, "left by a run that was killed", "removed", partial(remove, name))


DEEP = (releases, stored.cached, registered.logged)  # checks that can read more than they must
CHECKS: tuple[Callable[..., Iterator[Finding]], ...] = (
    interrupted,
    anchored,
    releases,
    stored.cached,
    registered.logged,
    chain,
    tagged,
    strangers,
    registered.twins,
    unfinished,
    registered.versions,
    worktrees,
    registered.tracked,
)
