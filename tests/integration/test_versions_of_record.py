"""A version has one commit of record, that of the run that made it: whatever is done later, every place says so."""

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import yaml
from sqlalchemy import select

from data.core.params import UserError
from flows.catalogue import queries, schema
from flows.doctor import checks
from flows.pipeline.run_record import load
from flows.release import bundle, of_run, packing, pointers, projections, recorded, rollback, stores, tags
from flows.release.gates import record
from flows.release.stores import Stores
from flows.reproduce import target
from flows.retrain import finalise
from tests.released import ARTIFACTS, EVALUATED, POLICY, copied, finished, git, train

pytestmark = pytest.mark.integration
STRICT = {"maskgit": {"thresholds": {"gfwd": 0.1}}}  # what the runs of released.EVALUATED do not reach
ASKING = {"maskgit": {"approval": "required"}}


@pytest.fixture
def quick(monkeypatch):
    """Models are registered without MLflow's own format, and runs end without a page: both take most of their time."""

    def pack(workspace, model, folder, about):
        folder.mkdir(parents=True)
        about.save(str(folder / "MLmodel"))

    monkeypatch.setattr(packing, "pack", pack)
    monkeypatch.setattr(finalise.report, "write", lambda ran, results, made, settings: settings.runs / ran.id)


def policy(places: Stores, values: dict) -> None:
    root = places.settings.root
    (root / "mlflow/promotion.yaml").write_text(yaml.safe_dump(POLICY | values))
    git(root, "commit", "-q", "--allow-empty", "-m", "policy", "--", "mlflow/promotion.yaml")


def versions(places: Stores) -> dict[str, str]:
    return {name: at for name, at in tags.read(places.settings.root).items() if "@v" in name}


def agree(places: Stores) -> None:
    """Doctor is silent, reproduction accepts every version, and catalogue, bundles, MLflow and git name one commit."""
    assert [str(one) for one in checks.examine(places)] == []
    there = tags.read(places.settings.root)
    noted = {one.tags["gto_tag"]: there[one.tags["git_tag"]] for one in places.mlflow().search_model_versions()}
    assert noted == versions(places)
    for tag, commit in versions(places).items():
        assert target.resolve(places.settings, tag).commit == commit
        with places.catalogue.read() as session:
            found = queries.record_of(session, tag)
        assert found is not None
        assert found[0] == commit
    for family in pointers.families(places.bucket):
        log = pointers.log(places.bucket, family)
        for member in {member for pointer in log for member in pointer.members}:
            lineage = bundle.read(places.bucket, member.model, member.bundle).lineage
            assert lineage.commit == versions(places)[member.tag]
            assert tags.read(places.settings.root)[lineage.tag] == lineage.commit
        for member in log[-1].members:
            found = target.resolve(places.settings, f"{member.model}@production")
            assert (found.tag, found.bundle) == (member.tag, member.bundle)


def test_a_version_that_a_later_run_releases_stays_where_it_was_made(places, quick):
    """The generator of a refused run is replaced, its tokenizer is not: the second run releases what the first made."""
    policy(places, STRICT)
    first = train(places.settings, 3)
    assert [one.state for one in finished(places, first).outcomes if one.family == "images"] == ["refused"]
    policy(places, ASKING)
    second = train(places.settings, 4, keep=("tokenizer",))
    assert [one.state for one in finished(places, second).outcomes if one.family == "images"] == ["waiting"]
    record.approve(places.catalogue, "maskgit", "v4", "Ada", "looks well")
    outcome = of_run.promote_run(places, "images", second.id, "Ada", "")
    assert (outcome.state, outcome.left) == ("released", ())
    made = {member.model: bundle.read(places.bucket, member.model, member.bundle) for member in outcome.release.members}
    assert {name: one.lineage.run for name, one in made.items()} == {"tokenizer": first.id, "maskgit": second.id}
    agree(places)
    assert made["tokenizer"].lineage.parameters == first.parameters != second.parameters


def test_a_version_that_the_registry_lost_keeps_its_commit_when_another_run_registers_it(places, quick):
    before = versions(places)
    again = train(places.settings, 3, keep=ARTIFACTS)
    for name in ("mlflow.db", "catalogue.db"):
        (places.settings.home / name).unlink()
    with stores.opened(places.settings) as empty:
        noted = load(places.settings, again.id)
        with recorded.opened(empty, again) as ran:
            made = of_run.register(empty, ran, [], noted.results).registered
        assert {one.tags["gto_tag"]: one.record.commit for one in made}.items() <= before.items()
        assert versions(places) == before
        for tag in (one.tags["gto_tag"] for one in made):
            with empty.catalogue.read() as session:
                assert queries.record_of(session, tag)[0] == before[tag]
            assert target.resolve(places.settings, tag).commit == before[tag]


class Sequence:
    """Random things that people and runs do, one after the other."""

    def __init__(self, places: Stores, seed: int) -> None:
        self.places, self.random, self.number = places, random.Random(seed), 2
        self.done: list[str] = []

    def run(self) -> None:
        finished(self.places, self._train())

    def killed(self) -> None:
        """A run that died after its tag, and a doctor who finishes it."""
        self._train()
        assert all(one.repaired for one in checks.examine(self.places, repair=True))

    def approve(self) -> None:
        for one in self._waiting():
            if one in self._waiting():  # a promotion judges again, by a policy that may ask for nothing
                record.approve(self.places.catalogue, one.model, f"v{one.version}", "Ada", "looks well")
                of_run.promote_run(self.places, one.family, one.run, "Ada", "")

    def _waiting(self) -> list:
        with self.places.catalogue.read() as session:
            return list(queries.waiting(session, queries.production(session)))

    def promote(self) -> None:
        runs = [name for name in tags.read(self.places.settings.root) if name.startswith("run/")]
        of_run.promote_run(self.places, self._family(), self.random.choice([None, *runs]), "Ada", "")

    def rollback(self) -> None:
        family = self._family()
        number = self.random.choice([None, *range(1, 1 + len(pointers.log(self.places.bucket, family)))])
        with contextlib.suppress(UserError):  # nothing to go back to
            rollback.rollback(self.places, family, number, "Ada")

    def policy(self) -> None:
        policy(self.places, self.random.choice([{}, {}, STRICT, ASKING]))

    def step(self) -> None:
        kinds: list[Callable[[], None]] = [self.run, self.run, self.run, self.killed, self.approve, self.promote]
        act = self.random.choice([*kinds, self.promote, self.rollback, self.policy])
        before = versions(self.places)
        act()
        self.done.append(act.__name__)
        after = versions(self.places)
        assert before.items() <= after.items(), "a tag was moved"
        newest = tags.read(self.places.settings.root)[max(recorded_runs(self.places))]
        assert {at for name, at in after.items() if name not in before} <= {newest}
        agree(self.places)

    def _train(self) -> object:
        self.number += 1
        pick = self.random.random
        keep = [name for name in ARTIFACTS if pick() < 0.4]
        again = {name: self.random.randrange(1, self.number) for name in ARTIFACTS if pick() < 0.3}
        good, bad = EVALUATED, {"tokenizer": {}, "depth": {"teacher": {"delta1": 0.9}, "small": {"delta1": 0.3}}}
        return train(self.places.settings, self.number, good | (bad if pick() < 0.25 else {}), keep, again)

    def _family(self) -> str:
        return self.random.choice(["images", "depth"])


def recorded_runs(places: Stores) -> Iterator[str]:
    return (name for name in tags.read(places.settings.root) if name.startswith("run/"))


def follow(places: Stores, seed: int, steps: int) -> None:
    sequence = Sequence(places, seed)
    try:
        for _ in range(steps):
            sequence.step()
    except BaseException as error:
        error.add_note(f"seed {seed}, behind {', '.join(sequence.done)}")
        raise


@pytest.mark.parametrize("seed", range(3))
def test_after_every_step_of_a_random_sequence_all_places_agree(places, quick, seed):
    follow(places, seed, steps=5)


@pytest.mark.soak
@pytest.mark.timeout(20_000)
def test_after_every_step_of_two_hundred_random_sequences_all_places_agree(two_runs, tmp_path, quick):
    for seed in range(100, 300):
        root = tmp_path / f"{seed}"  # a name of its own: MLflow keeps a database open by its name
        with stores.opened(copied(two_runs, root)) as places, contextlib.chdir(root):
            follow(places, seed, steps=6)
        shutil.rmtree(root)


def test_what_an_earlier_remint_released_for_another_run_comes_to_rest(places, quick, monkeypatch):
    """Its bundle names the run that released the version, and so did the tag, which it moved there."""
    root = places.settings.root
    policy(places, STRICT)
    first = train(places.settings, 3)
    finished(places, first)
    policy(places, {})
    second, now = train(places.settings, 4, keep=("tokenizer",)), bundle._lineage
    with monkeypatch.context() as earlier:
        moved = {"run": second.id, "commit": second.commit, "tag": second.tag}
        earlier.setattr(bundle, "_lineage", lambda run, one: replace(now(run, one), **moved))
        earlier.setattr(projections, "_made_otherwise", lambda *_: [])
        finished(places, second)
    tag = "tokenizer@v3.0.0"
    assert tags.read(root)[tag] == first.commit
    for standing in (second.commit, first.commit):  # as it was left, and as its doctor had put it back
        git(root, "tag", "-f", "-a", "-m", f"tokenizer v3 of {second.tag}", tag, standing)
        with places.catalogue.begin() as session:
            session.scalars(select(schema.ModelVersion).filter_by(tag=tag)).one().run_id = first.id
        said = [str(one) for one in checks.examine(places, repair=True)]
        assert (
            said[0]
            == f"repaired  catalogue: tokenizer v3 is of run {first.id}, should be of run {second.id}, by its bundle"
        )
        if said[1:]:
            assert f"git tag -d '{tag}'" in said[1]
            git(root, "tag", "-d", tag)
            assert [one.repaired for one in checks.examine(places, repair=True)] == [True]
        assert list(checks.examine(places)) == []
        for name in ("tokenizer@v3", "tokenizer@production"):
            assert target.resolve(places.settings, name).commit == second.commit
