"""Secrets of the stack: random, for their owner's eyes, no more than each needs, and in no committed file."""

import base64
import json
import math
import re
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from infra.stack import access, compose, secrets

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("made") / "secrets"
    secrets.make(made)
    return made


def values(folder):
    return json.loads((folder / secrets.VALUES).read_text())


def test_only_their_owner_can_read_them(folder):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_made_again_they_stay_and_what_is_missing_is_added(folder, tmp_path):
    secrets.make(tmp_path)
    before = values(tmp_path)
    del before["prefect.server"]
    (tmp_path / secrets.VALUES).write_text(json.dumps(before))
    (tmp_path / "worker.env").unlink()
    secrets.make(tmp_path)
    after = values(tmp_path)
    assert {key: after[key] for key in before} == before
    assert after["prefect.server"] in (tmp_path / "worker.env").read_text()


def test_no_two_are_alike_and_none_is_short(folder, tmp_path):
    secrets.make(tmp_path)
    every = [*values(folder).values(), *values(tmp_path).values()]
    assert max(Counter(every).values()) == 1
    assert min(map(len, every)) >= 20


def test_they_need_nothing_that_is_installed(tmp_path):
    """`make stack-secrets` on a machine with Docker and a bare Python."""
    code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); del sys.argv[1]; "
    code += "runpy.run_module('infra.stack.secrets', run_name='__main__')"
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "worker.env").exists()


def test_each_is_given_its_own_and_nothing_else(folder):
    known = values(folder)
    given = {
        path.stem: {name for name, value in known.items() if value in path.read_text()} for path in folder.glob("*.env")
    }
    s3 = {user: {f"s3.{user}.key", f"s3.{user}.secret"} for user in (access.ADMIN, *access.USERS)}
    assert given["worker"] == {*s3["worker"], "mlflow.worker", "prefect.server"}
    assert given["releaser"] == {*s3["releaser"], "mlflow.releaser", "prefect.server", "database.catalogue"}
    assert given["reader"] == {*s3["reader"], "mlflow.reader"}
    assert given["photographer"] == s3["photographer"]
    assert given["mlflow"] == {*s3["mlflow"], "mlflow.admin", "mlflow.session", "database.mlflow"}
    assert given["prefect"] == {"database.prefect", "prefect.server"}
    assert "database.postgres" in given["postgres"]
    assert given["s3"] == set()  # in base64


def test_seaweedfs_is_told_the_rights_of_the_table(folder):
    (line,) = (folder / "s3.env").read_text().splitlines()
    told = json.loads(base64.b64decode(line.partition("=")[2]))
    rights = {entry["name"]: entry["actions"] for entry in told["identities"]}
    assert rights.pop(access.ADMIN)[0] == "Admin"
    assert rights["reader"] == ["Read:remint-production", "List:remint-production"]
    assert rights.pop("photographer") == ["List:remint-data/photographs/*", "Write:remint-data/photographs/*"]
    for name, actions in rights.items():
        assert all(":" in action for action in actions), name  # of a bucket, never of all
        writes = {action.partition(":")[2] for action in actions if action.startswith("Write")}
        assert writes == {bucket for bucket, right in access.USERS[name].items() if right == "write"}
    keys = {entry["name"]: entry["credentials"][0]["accessKey"] for entry in told["identities"]}
    assert keys["worker"] == compose.variables_of(folder / "worker.env")["AWS_ACCESS_KEY_ID"]


def test_policies_say_the_same_as_the_table():
    for bucket in access.BUCKETS:
        statements = [one for one in access.policy(bucket)["Statement"] if "photographer" not in one["Sid"]]
        assert {statement["Sid"] for statement in statements} == {
            n for n, rights in access.USERS.items() if bucket in rights
        }
        for statement in statements:
            writes = "s3:PutObject" in statement["Action"]
            assert writes == (access.USERS[statement["Sid"]][bucket] == "write")
            assert all("*" not in action for action in statement["Action"])
            assert all(f":::{bucket}" in resource for resource in statement["Resource"])


def test_a_right_below_a_prefix_is_one_there_and_to_list_there():
    put, lists = (one for one in access.policy(access.DATA)["Statement"] if "photographer" in one["Sid"])
    assert put["Resource"] == ["arn:aws:s3:::remint-data/photographs/*"]
    assert "s3:PutObject" in put["Action"]
    assert not {"s3:GetObject", "s3:DeleteObject", "s3:ListBucket"} & set(put["Action"])
    assert lists["Action"] == ["s3:ListBucket"]
    assert lists["Condition"] == {"StringLike": {"s3:prefix": ["photographs/*"]}}


def test_git_ignores_them():
    done = subprocess.run(["git", "check-ignore", ".secrets/worker.env"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0


SECRET = re.compile(
    r"(?i)(password|secret|token|auth_string|access_key)[\w.]*[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9+/=_-]{16,})"
)


def bits(text):
    """Shannon's entropy of its letters, in bits each: 3 to 3.6 for names, above for random hex of this length."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def found(text):
    return [match[2] for match in SECRET.finditer(text) if bits(match[2]) > 3.2 and re.search(r"\d", match[2])]


def test_no_committed_file_of_the_stack_holds_one():
    tracked = subprocess.run(
        ["git", "ls-files", "docker-compose.yml", "infra", "mlflow", "infra/stack", "docs", "Makefile", ".ci"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(tracked) > 20
    for name in tracked:
        path = ROOT / name
        if path.suffix not in (".png", ".jpg") and path.exists():
            assert found(path.read_text()) == [], name


def test_the_search_would_find_one(folder):
    assert found((folder / "worker.env").read_text())
