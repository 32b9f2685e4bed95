"""Outputs between a cache and DVC's remote, a folder and a real S3: whole, verified, and once."""

import subprocess
from contextlib import chdir, closing

import pytest

from data.core.params import UserError
from flows.pipeline.store import Store
from flows.storage import bucket
from flows.storage.protocol import NotThere

pytestmark = pytest.mark.integration


@pytest.fixture
def machines(production, tmp_path):
    """Stores of two repositories with caches of their own, around one remote; the first has a folder and a file."""
    from dvc.repo import Repo

    remote = bucket.at(production, "REMINT_REMOTE")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        subprocess.run(["git", "init", "--quiet"], cwd=tmp_path / name, check=True)
        with chdir(tmp_path / name):
            Repo.init().close()
    folder = tmp_path / "one" / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text("a")
    (folder / "b.bin").write_bytes(bytes(range(256)) * 40_000)
    with chdir(tmp_path / "one"), Repo() as repo:
        repo.add("folder")
    with closing(Store(tmp_path / "one", remote)) as one, closing(Store(tmp_path / "two", remote)) as two:
        yield one, two, one.tracked["folder"]


def test_a_folder_goes_with_its_files_and_comes_with_them_and_nothing_moves_twice(machines):
    one, two, oid = machines
    assert one.cache.push([oid]) > 10_000_000
    assert one.cache.push([oid]) == 0
    assert two.cache.fetch({"folder": oid}) > 10_000_000
    assert two.cache.fetch({"folder": oid}) == 0
    assert {name: path.read_bytes()[:3] for name, path in two.cache.files(oid).items()} == {
        "b.bin": b"\0\1\2",
        "inner/a.txt": b"a",
    }


def test_single_files_of_a_folder_come_alone(machines):
    one, two, oid = machines
    one.cache.push([oid])
    small = two.cache.members(oid)["inner/a.txt"]
    assert two.cache.fetch({"folder/inner/a.txt": small}) == 1
    assert not two.stored({"folder": two.cache.members(oid)["b.bin"]}) or two.accepted.holds(
        two.cache.members(oid)["b.bin"]
    )


def test_what_the_cache_has_damaged_is_brought_again(machines):
    one, two, oid = machines
    one.cache.push([oid])
    two.cache.fetch({"folder": oid})
    path = two.cache.objects.path(two.cache.members(oid)["inner/a.txt"])
    path.chmod(0o644)
    path.write_text("b")
    assert two.cache.fetch({"folder": oid}) >= 1
    assert path.read_text() == "a"


def test_what_the_remote_has_damaged_is_not_taken_and_what_it_lacks_is_named(machines):
    one, two, oid = machines
    with pytest.raises(NotThere, match="folder is neither in the cache nor in DVC's remote"):
        two.cache.fetch({"folder": oid})
    one.cache.push([oid])
    small = one.cache.members(oid)["inner/a.txt"]
    key = f"files/md5/{small[:2]}/{small[2:]}"
    one.remote.delete(key)
    one.remote.create(key, b"x")
    # of a remote in a folder DVC notices it by itself
    with pytest.raises(UserError, match="damaged: expected md5 .* as DVC's remote has it|could not be fetched whole"):
        two.cache.fetch({"folder": oid})
    assert not two.cache.objects.path(small).exists()


def test_a_remote_that_is_away_is_one_line(machines, monkeypatch, tmp_path):
    one, _, oid = machines
    with closing(Store(one.root, bucket.at(str(tmp_path / "file" / "below"), "REMINT_REMOTE"))) as store:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(UserError, match="DVC cannot push outputs|REMINT_REMOTE") as error:
            store.cache.push([oid])
    assert "\n" not in str(error.value)
