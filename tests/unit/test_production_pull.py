"""A pull leaves the whole release or what was there before, whatever stands in its way."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from data.core.params import UserError
from flows.commands.pull import parse
from flows.release import bundle, pointers
from flows.release.pull import holds, pull
from flows.storage import swap
from flows.storage.folder import FolderBucket

MODELS = {"maskgit": 2, "tokenizer": 1}


@pytest.fixture
def bucket(tmp_path):
    return FolderBucket(tmp_path / "bucket")


@pytest.fixture
def target(tmp_path):
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "images"


def around(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_release_is_brought_whole_and_a_second_pull_does_nothing(bucket, publish, target):
    release = publish(bucket, "images", MODELS)
    seen: list[tuple[int, int]] = []
    done = pull(bucket, "images", None, target, lambda *counts: seen.append(counts))
    assert (done.pointer, done.new) == (release, True)
    assert (target / "release.json").read_text() == pointers.text(release)
    for member in release.members:
        assert bundle.at(target / member.model, member.model, member.bundle) is not None
        assert {path.name for path in (target / member.model).iterdir()} == {*bundle.FILES, "manifest.json"}
    assert seen[-1] == (done.size, done.size)
    assert around(target) == ["images"]
    before = contents(target)
    assert not pull(bucket, "images", None, target).new
    assert contents(target) == before


@pytest.mark.parametrize("atomic", [True, False])
def test_another_release_is_replaced_and_members_in_common_are_not_fetched_again(
    bucket, publish, target, monkeypatch, atomic
):
    if not atomic:
        monkeypatch.setattr(swap, "exchange", lambda one, other: False)
    publish(bucket, "images", MODELS)
    pull(bucket, "images", None, target)
    newer = publish(bucket, "images", {"maskgit": 3, "samba": 4, "tokenizer": 1})
    fetched: list[str] = []
    original = bucket.download
    monkeypatch.setattr(bucket, "download", lambda key, *rest: (fetched.append(key), original(key, *rest)))
    assert pull(bucket, "images", None, target).new
    assert {key.split("/")[1] for key in fetched} == {"maskgit", "samba"}
    assert holds(target, newer)
    assert around(target) == ["images"]
    assert pull(bucket, "images", 1, target).pointer.number == 1
    assert sorted(path.name for path in target.iterdir()) == ["maskgit", "newest.json", "release.json", "tokenizer"]


def test_a_damaged_release_is_mended(bucket, publish, target):
    release = publish(bucket, "images", MODELS)
    pull(bucket, "images", None, target)
    (target / "maskgit/model.safetensors").write_bytes(b"damaged")
    (target / "tokenizer/config.json").unlink()
    assert not holds(target, release)
    assert pull(bucket, "images", None, target).new
    assert holds(target, release)


def test_what_is_not_a_release_of_the_family_is_refused_and_left_alone(bucket, publish, target, tmp_path):
    publish(bucket, "images", MODELS)
    publish(bucket, "depth", {"depth-small": 1})

    def refused(words: str) -> None:
        before = contents(target.parent)
        with pytest.raises(UserError, match=words):
            pull(bucket, "images", None, target)
        assert contents(target.parent) == before

    target.mkdir()
    (target / "thesis.tex").write_text("years of work")
    refused("images holds something else than a release")
    shutil.rmtree(target)
    pull(bucket, "depth", None, target)
    refused("holds depth@1, a release of another family")
    shutil.rmtree(target)
    target.write_text("a file")
    refused("images is a file, not a folder")
    target.unlink()
    target.symlink_to(tmp_path)
    refused("images is a link")
    target.unlink()
    (target.parent / "images.partial").mkdir()
    (target.parent / "images.partial/notes.txt").write_text("mine")
    refused("images.partial holds notes.txt, which no pull left there")


def test_files_beside_the_folder_are_left_alone(bucket, publish, target):
    publish(bucket, "images", MODELS)
    for name in ("images.lock", "images.old", "images.bak", "images.json"):
        (target.parent / name).write_text("mine")
    pull(bucket, "images", None, target)
    publish(bucket, "images", {"maskgit": 9})
    pull(bucket, "images", None, target)
    assert [(target.parent / name).read_text() for name in around(target) if name != "images"] == ["mine"] * 4


def test_files_of_ones_own_in_a_release_are_not_lost(bucket, publish, target):
    publish(bucket, "images", MODELS)
    pull(bucket, "images", None, target)
    (target / "tokenizer/notes.txt").write_text("mine")
    assert not pull(bucket, "images", None, target).new  # nothing is to be exchanged
    publish(bucket, "images", {"tokenizer": 5})
    with pytest.raises(UserError, match="holds tokenizer, which is not of its release and would be lost"):
        pull(bucket, "images", None, target)
    assert (target / "tokenizer/notes.txt").read_text() == "mine"


def test_the_folder_one_stands_in_is_refused(bucket, publish, target, monkeypatch):
    publish(bucket, "images", MODELS)
    (target / "deeper").mkdir(parents=True)
    monkeypatch.chdir(target / "deeper")
    for into in (Path(), Path(".."), Path("/")):
        with pytest.raises(UserError, match="is where you stand"):
            pull(bucket, "images", None, into)


def test_a_wrong_digest_installs_nothing_and_keeps_what_was_there(bucket, publish, target):
    first = publish(bucket, "images", MODELS)
    pull(bucket, "images", None, target)
    second = publish(bucket, "images", {"maskgit": 9, "tokenizer": 1})
    key = f"{bundle.prefix('maskgit', second.members[0].bundle)}/model.safetensors"
    path = bucket.root / key
    right = path.read_bytes()
    path.write_bytes(right[:-1] + b"\0")
    with pytest.raises(UserError, match=f"{key} has the wrong content: expected sha256 {second.members[0].weights}"):
        pull(bucket, "images", None, target)
    assert holds(target, first)
    path.write_bytes(right)
    pull(bucket, "images", None, target)
    assert holds(target, second)


def test_a_pointer_whose_bundle_holds_other_weights_is_refused(bucket, publish, target):
    member = publish(bucket, "images", MODELS).members[0]
    lie = pointers.Member("maskgit", 1, "0" * 64, "maskgit@v1.0.0", member.bundle)
    pointers.append(bucket, pointers.Pointer("depth", 1, (lie,), "run", "c" * 40, "mallory", "", "2026", ""))
    with pytest.raises(UserError, match=f"names weights {'0' * 64} of maskgit, but its bundle holds {member.weights}"):
        pull(bucket, "depth", None, target)
    assert around(target) == []


@pytest.mark.parametrize("model", ["../evil", "/etc", "..", "", "release.json", "a/b", "a\\b", "x" * 65])
def test_a_hostile_pointer_leads_nowhere(bucket, target, model):
    member = {"model": model, "version": 1, "weights": "0" * 64, "tag": "", "bundle": "0" * 64}
    values = {"format": 1, "family": "images", "number": 1, "members": [member], "run": "", "commit": "", "who": "",
              "why": "", "at": "", "previous": "", "restores": None, "procedure": ""}  # fmt: skip
    bucket.create("releases/images/000001.json", (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())
    with pytest.raises(UserError, match="is no name of a model"):
        pull(bucket, "images", None, target)
    assert around(target) == []


def test_an_unknown_family_or_release_names_what_is_near(bucket, publish, target):
    with pytest.raises(UserError, match="holds no release yet; promote one first, or correct REMINT_PRODUCTION"):
        pull(bucket, "images", None, target)
    publish(bucket, "images", MODELS)
    for family, words in [
        ("image", "no family 'image' .*; did you mean 'images'"),
        ("../x", "no family '../x'"),
        ("tokenizer", "tokenizer is a model, released as part of images: remint pull images@production"),
    ]:
        with pytest.raises(UserError, match=words):
            pull(bucket, family, None, target)
    with pytest.raises(UserError, match="has no release 2 of images; the newest is images@1"):
        pull(bucket, "images", 2, target)
    assert around(target) == []


def test_a_release_is_named_by_production_or_by_number():
    assert parse("images@production") == parse("images") == ("images", None)
    assert parse("images@12") == ("images", 12)
    for wrong in ("images@0", "images@-1", "images@²", "images@prodution", "images@1@2", "images@9999999999"):
        with pytest.raises(UserError, match="images@production or images@12"):
            parse(wrong)


def test_too_little_room_is_said_before_anything_is_fetched(bucket, publish, target, monkeypatch):
    publish(bucket, "images", MODELS)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(UserError, match="here has 0 MB free, 0 MB are needed; free space or pull elsewhere"):
        pull(bucket, "images", None, target)
    assert around(target) == []


def test_a_disk_that_fills_up_keeps_what_has_arrived(bucket, publish, target, monkeypatch):
    release = publish(bucket, "images", MODELS)
    original, calls = os.fsync, iter(range(100))

    def full(descriptor: int) -> None:
        if next(calls) == 7:  # somewhere in the middle; disks that allocate late say so here
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"no space left in .*here: free some and run again; .* is kept in .*\.partial"):
        pull(bucket, "images", None, target)
    assert around(target) == ["images.partial"]
    arrived = len(contents(target.parent))
    assert arrived > 1
    pull(bucket, "images", None, target)
    assert holds(target, release)
    assert around(target) == ["images"]


def test_a_second_pull_at_the_same_time_is_refused(bucket, publish, target):
    publish(bucket, "images", MODELS)
    refused: list[str] = []

    def meanwhile(done: int, size: int) -> None:
        with pytest.raises(UserError) as caught:
            pull(bucket, "images", None, target)
        refused.append(str(caught.value))

    pull(bucket, "images", None, target, meanwhile)
    assert {line.split(" into ")[0] for line in refused} == {"another pull"}
    assert around(target) == ["images"]


def test_what_a_dead_pull_left_of_its_lock_or_another_release_is_in_nobodys_way(bucket, publish, target):
    publish(bucket, "images", MODELS)
    newer = publish(bucket, "images", {"maskgit": 7})
    (target.parent / ".images.remint-pull").touch()
    staging = target.parent / "images.partial"
    pull(bucket, "images", 1, staging)  # whole, but of another release, with a model that is gone
    (staging / "maskgit/config.json.partial").write_text("left")
    pull(bucket, "images", None, target)
    assert holds(target, newer)
    assert {path.name for path in (target / "maskgit").iterdir()} == {*bundle.FILES, "manifest.json"}
    assert around(target) == ["images"]


def test_a_kill_between_the_two_renames_is_mended(bucket, publish, target, monkeypatch):
    first = publish(bucket, "images", MODELS)
    pull(bucket, "images", None, target)
    second = publish(bucket, "images", {"maskgit": 9, "tokenizer": 1})
    monkeypatch.setattr(swap, "exchange", lambda one, other: False)
    original = Path.rename

    def dies(self: Path, other: Path) -> Path:
        if self.name == "images.partial":
            raise KeyboardInterrupt
        return original(self, other)

    monkeypatch.setattr(Path, "rename", dies)
    with pytest.raises(KeyboardInterrupt):
        pull(bucket, "images", None, target)
    assert not target.exists()
    monkeypatch.setattr(Path, "rename", original)
    swap.recover(target)
    assert holds(target, first)
    pull(bucket, "images", None, target)
    assert holds(target, second)
    assert around(target) == ["images"]


def test_a_folder_remembers_the_newest_release_that_a_pull_has_seen(bucket, publish, target):
    """What a machine without a clone can tell: the log is still the one that it saw."""
    publish(bucket, "images", MODELS)
    publish(bucket, "images", {"maskgit": 3, "tokenizer": 1})
    pull(bucket, "images", 1, target)
    assert pointers.parse((target / "newest.json").read_bytes(), "").number == 2
    last = bucket.root / pointers.key("images", 2)
    text = last.read_text()
    last.unlink()
    with pytest.raises(UserError, match=r"images@2, which an earlier pull .* is not in the log .* ends with images@1"):
        pull(bucket, "images", None, target)
    last.write_text(text.replace('"who": "ann"', '"who": "eve"'))
    with pytest.raises(UserError, match="images@2, which an earlier pull .* is another one in .* now: digest"):
        pull(bucket, "images", None, target)
    assert pull(bucket, "images", None, target.with_name("another")).new  # which has seen nothing
    last.unlink()
    last.write_text(text)
    newest = publish(bucket, "images", {"maskgit": 4, "tokenizer": 1})
    assert not pull(bucket, "images", 1, target).new
    assert pointers.parse((target / "newest.json").read_bytes(), "") == newest
    assert pull(bucket, "images", None, target).new
    assert not (target / "newest.json").exists()  # release.json says it


def test_an_older_release_is_held_against_what_the_next_one_says_of_it(bucket, publish, target):
    publish(bucket, "images", MODELS)
    publish(bucket, "images", {"maskgit": 3, "tokenizer": 1})
    publish(bucket, "images", {"maskgit": 4, "tokenizer": 1})
    second = bucket.root / pointers.key("images", 2)
    text = second.read_text()
    second.unlink()
    second.write_text(text.replace('"why": "better"', '"why": "worse"'))
    with pytest.raises(UserError, match="release 3 of images follows a release 2 of digest"):
        pull(bucket, "images", 2, target)
    assert not target.exists()
