"""The run cache here and in the remote, in a folder and in a real S3: what one machine accepted, all others find."""

import hashlib
import json

import pytest

from data.core.params import UserError
from flows.pipeline import keys
from flows.pipeline.accepted import Accepted
from flows.storage import bucket

pytestmark = pytest.mark.integration

ENTRY = {
    "cmd": "python stage.py",
    "deps": [{"path": "stage.py", "hash": "md5", "md5": "ab" * 16, "size": 7}],
    "params": {"params.yaml": {"lr": 1e-05, "name": "no", "seed": 1}},
    "outs": [{"path": "out", "hash": "md5", "md5": "cd" * 16 + ".dir", "size": 9, "nfiles": 2}],
}
KEY = keys.of_entry(ENTRY)


@pytest.fixture
def machines(production, tmp_path):
    """Two machines with a run cache each, around one remote."""
    remote = bucket.at(production, "REMINT_REMOTE")
    return [Accepted(tmp_path / name, remote) for name in ("one", "two")]


def test_what_one_machine_accepted_another_finds_with_every_number_as_it_was(machines):
    one, two = machines
    assert one.find(KEY) is None
    one.add(KEY, ENTRY)
    one.add(KEY, ENTRY)  # as a second run does that waited for the same attempt
    found = two.find(KEY)
    assert found == ENTRY
    assert keys.of_entry(found) == KEY
    two.remote = None
    assert two.find(KEY) == ENTRY  # kept for when the remote is away


def test_the_key_is_made_of_the_inputs_and_the_names_of_the_outputs_alone():
    other = json.loads(json.dumps(ENTRY))
    other["outs"][0]["md5"], other["deps"][0]["size"] = "0" * 32, 8
    assert keys.of_entry(other) == KEY
    assert keys.value_of(other) != keys.value_of(ENTRY)
    for change in (("deps", 0, "md5", "0" * 32), ("outs", 0, "path", "elsewhere")):
        changed = json.loads(json.dumps(ENTRY))
        changed[change[0]][change[1]][change[2]] = change[3]
        assert keys.of_entry(changed) != KEY


def test_objects_and_lists_of_folders_are_seen_in_the_remote_and_damaged_ones_are_named(machines, tmp_path):
    one, _ = machines
    data = b'[{"md5": "x", "relpath": "a"}]'
    oid = hashlib.md5(data).hexdigest() + ".dir"
    path = tmp_path / "cache" / "list"
    assert not one.holds(oid)
    assert not one.bring_list(oid, path)
    one.remote.create(f"files/md5/{oid[:2]}/{oid[2:]}", data)
    assert one.holds(oid)
    assert not one.holds(oid.removesuffix(".dir"))
    assert one.bring_list(oid, path)
    assert path.read_bytes() == data
    one.remote.create(f"files/md5/{'0' * 2}/{'0' * 30}.dir", data)
    with pytest.raises(UserError, match=r"00\.dir is damaged"):
        one.bring_list(f"{'0' * 32}.dir", path)


def test_a_machine_without_a_remote_knows_its_own_results(tmp_path):
    alone = Accepted(tmp_path)
    alone.add(KEY, ENTRY)
    assert alone.find(KEY) == ENTRY
    assert not alone.holds("ab" * 16)
