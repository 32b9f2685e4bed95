"""The production bucket after a collection: every bundle that a release ever named, and nothing else for long."""

import hashlib
import json
import random
from datetime import UTC, datetime

import pytest

from flows.catalogue import database
from flows.catalogue.schema import Procedure
from flows.garbage import releases
from flows.garbage.place import InTheWay, Place
from flows.release import pointers
from flows.release.pointers import Member, Pointer
from flows.settings import Settings
from flows.storage import bucket

pytestmark = pytest.mark.integration
HOUR = 3600.0


@pytest.fixture
def settings(tmp_path):
    made = Settings(root=tmp_path)
    made.home.mkdir()
    return made


def place(settings, hours=0.0, grace=HOUR, living=()):
    return Place(settings, frozenset(living), 1e9 + hours * HOUR, grace)


def bundle(settings, model: str, what: str) -> str:
    """A bundle's files as they lie in the bucket; returns its digest."""
    where = bucket.at(settings.production)
    manifest = json.dumps({"model": model, "files": [{"name": "model.safetensors", "size": len(what)}]}).encode()
    digest = hashlib.sha256(manifest + what.encode()).hexdigest()
    where.create(f"bundles/{model}/{digest}/model.safetensors", what.encode())
    where.create(f"bundles/{model}/{digest}/manifest.json", manifest)
    return digest


def release(settings, family: str, bundles: dict[str, str]) -> None:
    where = bucket.at(settings.production)
    before = pointers.newest(where, family)
    members = tuple(Member(model, 1, "0" * 64, f"{model}@v1.0.0", digest) for model, digest in sorted(bundles.items()))
    number, previous = (before.number + 1, pointers.digest(before)) if before else (1, "")
    pointers.append(where, Pointer(family, number, members, "r", "0" * 40, "me", "test", "2026-01-01", previous))


def procedure(settings, state: str) -> None:
    with database.open(settings).begin() as session:
        common = {"family": "images", "number": 1, "pointer": "{}", "before": {}}
        session.merge(Procedure(id="p", kind="promote", state=state, created=datetime.now(UTC), **common))


def present(settings) -> set[str]:
    return {key.rpartition("/")[0] for key in bucket.at(settings.production).list("bundles/")}


def collected(place) -> list[str]:
    with releases.KIND.guard(place):
        items = list(releases.find(place))
        for item in items:
            releases.delete(place, item)
    return [item.what for item in items]


def test_what_any_release_named_stays_and_the_rest_goes_after_the_grace_period(settings):
    rng = random.Random(3)
    digests = [bundle(settings, rng.choice(["tokenizer", "maskgit"]), f"weights {i}") for i in range(20)]
    models = {key.split("/")[2]: key.split("/")[1] for key in bucket.at(settings.production).list("bundles/")}
    named = set()
    for _ in range(6):
        for family in ("images", "depth"):
            digest = rng.choice(digests)
            release(settings, family, {models[digest]: digest})
            named.add(f"bundles/{models[digest]}/{digest}")
    everything = present(settings)
    assert collected(place(settings)) == []  # seen for the first time
    assert collected(place(settings, hours=0.9)) == []
    assert set(collected(place(settings, hours=1))) == everything - named
    assert present(settings) == named
    assert collected(place(settings, hours=1)) == []


def test_an_orphan_that_a_release_comes_to_name_is_kept_and_its_time_begins_again(settings):
    digest = bundle(settings, "tokenizer", "weights")
    assert collected(place(settings)) == []
    release(settings, "images", {"tokenizer": digest})
    assert collected(place(settings, hours=5)) == []
    assert json.loads((settings.home / "garbage.json").read_text()) == {}


def test_a_clock_that_goes_backwards_only_makes_it_wait(settings):
    bundle(settings, "tokenizer", "weights")
    assert collected(place(settings, hours=100)) == []
    assert collected(place(settings, hours=1)) == []
    assert collected(place(settings, hours=1.5)) == []
    assert len(collected(place(settings, hours=2))) == 1


def test_a_note_that_cannot_be_read_begins_anew(settings):
    bundle(settings, "tokenizer", "weights")
    collected(place(settings))
    (settings.home / "garbage.json").write_text("{")
    assert collected(place(settings, hours=50)) == []
    assert len(collected(place(settings, hours=51))) == 1


def test_an_unfinished_promotion_is_in_the_way(settings):
    bundle(settings, "tokenizer", "weights")
    collected(place(settings))
    procedure(settings, "open")
    with pytest.raises(InTheWay, match="promote of images to 1 is not finished: remint doctor --repair"):
        collected(place(settings, hours=2))
    procedure(settings, "undone")
    assert len(collected(place(settings, hours=2))) == 1


@pytest.mark.parametrize("event", ["promotion", "release"])
def test_a_promotion_between_finding_and_removing_keeps_its_bundle(settings, event):
    digest = bundle(settings, "tokenizer", "weights")
    collected(place(settings))
    (item,) = releases.find(place(settings, hours=2))
    if event == "promotion":
        procedure(settings, "open")
    else:
        release(settings, "images", {"tokenizer": digest})
    with pytest.raises(InTheWay):
        releases.delete(place(settings, hours=2), item)
    assert len(bucket.at(settings.production).list(f"{item.what}/")) == 2


def test_a_removal_that_was_killed_leaves_no_readable_bundle_and_is_completed(settings, monkeypatch):
    digest = bundle(settings, "tokenizer", "weights")
    collected(place(settings))
    where = bucket.at(settings.production)
    removed = []

    class Dying(type(where)):
        def delete(self, key):
            if removed:
                raise KeyboardInterrupt
            removed.append(key)
            super().delete(key)

    monkeypatch.setattr(bucket, "at", lambda address: Dying(where.root))
    with pytest.raises(KeyboardInterrupt):
        collected(place(settings, hours=2))
    monkeypatch.undo()
    assert removed == [f"bundles/tokenizer/{digest}/manifest.json"]
    assert collected(place(settings, hours=2)) == [f"bundles/tokenizer/{digest}"]
    assert present(settings) == set()


def test_a_running_run_is_in_the_way(settings):
    with pytest.raises(InTheWay, match="run r1 is working"):
        collected(place(settings, living=["r1"]))
