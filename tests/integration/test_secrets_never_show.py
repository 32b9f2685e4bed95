"""Secrets of the environment are in nothing that a command prints or leaves: no log, table, tag, report, database."""

import os
import re
import signal
import subprocess
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from flows.cli import COMMANDS, main

pytestmark = pytest.mark.integration
PLAIN = "Pa55/w@rd:0f-{}"  # as a server wants it
QUOTED = "Pa55%2Fw%40rd%3A0f-{}"  # as it stands in an address
NAMES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PGPASSWORD",
)
SECRET = re.compile(r"Pa55(/w@rd:|%2Fw%40rd%3A)0f-[\w.-]*")
NOWHERE = "127.0.0.1:9"  # nobody listens there


def plain_secrets() -> dict[str, str]:
    return {name: PLAIN.format(name) for name in NAMES} | {"AWS_ACCESS_KEY_ID": "remint", "AWS_REGION": "us-east-1"}


def shown(text: str) -> str:
    """The first secret in a text with its surroundings, "" if there is none."""
    found = SECRET.search(text)
    return text[max(0, found.start() - 80) : found.end() + 20] if found else ""


def kept(root: Path) -> dict[str, str]:
    """Every file below a folder, and every object of its git repository, that holds a secret."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and (text := shown(path.read_bytes().decode("latin-1"))):
            found[path.relative_to(root).as_posix()] = text
    command = ["git", "-C", str(root), "cat-file", "--batch", "--batch-all-objects"]  # packed ones are compressed
    objects = subprocess.run(command, check=True, capture_output=True).stdout.decode("latin-1")
    refs = subprocess.run(["git", "-C", str(root), "for-each-ref"], check=True, capture_output=True, text=True).stdout
    return found | ({"git": shown(objects + refs)} if shown(objects + refs) else {})


@pytest.mark.slow
def test_whole_runs_leave_none_anywhere(make_toy, tmp_path, monkeypatch):
    """With them, stages fail and work, servers and databases come up, a report and tags are written."""
    from flows import settings
    from flows.server import connect

    (tmp_path / "toy").mkdir()
    toy = make_toy(tmp_path / "toy")
    for name, value in plain_secrets().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("flows.server.local.START_SECONDS", 250)  # on a machine that is busy with other tests
    chosen = settings.load(toy.root)
    with connect.borrowed(chosen, settings.child_environment(chosen)):
        failed = toy.remint("retrain", "--set", "behaviour.fails=right@a", "-v", **plain_secrets())
        done = toy.remint("retrain", "--json", **plain_secrets())
    assert failed.returncode == 1, failed.stderr
    assert done.returncode == 0, done.stderr
    assert (toy.root / ".remint" / "runs").is_dir()
    for said in (failed.stdout, failed.stderr, done.stdout, done.stderr):
        assert shown(said) == ""
    assert kept(toy.root) == {}


ABSENT = {
    "catalogue": {"REMINT_CATALOGUE": f"postgresql://remint:{QUOTED.format('pg')}@{NOWHERE}/remint"},
    "catalogue-driver": {"REMINT_CATALOGUE": f"oracle://remint:{QUOTED.format('driver')}@{NOWHERE}/remint"},
    "catalogue-words": {"REMINT_CATALOGUE": f"postgresql//remint:{QUOTED.format('words')}@{NOWHERE}/remint"},
    "MLflow": {"REMINT_MLFLOW_URI": f"http://remint:{QUOTED.format('mlflow')}@{NOWHERE}"},
    "MLflow-database": {"REMINT_MLFLOW_URI": f"postgresql://remint:{QUOTED.format('db')}@{NOWHERE}/mlflow"},
    "production": {
        "REMINT_PRODUCTION": "s3://remint/production",
        "AWS_ENDPOINT_URL": f"http://remint:{QUOTED.format('s3')}@{NOWHERE}",
    },
    "production-words": {"REMINT_PRODUCTION": f"s3://remint:{QUOTED.format('bucket')}@{NOWHERE}/production"},
    "checkpoints": {
        "REMINT_CHECKPOINTS": "s3://remint/checkpoints",
        "AWS_ENDPOINT_URL": f"http://remint:{QUOTED.format('s3')}@{NOWHERE}",
    },
    "checkpoints-words": {"REMINT_CHECKPOINTS": f"s3://remint:{QUOTED.format('cut')}@{NOWHERE}/checkpoints"},
    "Prefect": {"REMINT_PREFECT_API": f"http://remint:{QUOTED.format('prefect')}@{NOWHERE}/api"},
}
COMMAND = {
    "data": ["data", "list"],
    "retrain": ["retrain"],
    "gates": ["gates", "tokenizer", "v1"],
    "approve": ["approve", "tokenizer", "v1", "--why", "it is good"],
    "reproduce": ["reproduce", "tokenizer@production"],
    "lineage": ["lineage", "tokenizer@production"],
    "gc": ["gc"],
    "pull": ["pull", "images@production", "here"],
    "judge": ["judge"],
    "promote": ["promote", "images"],
    "rollback": ["rollback", "images"],
    "history": ["history", "images"],
    "diff": ["diff", "images", "1", "2"],
    "doctor": ["doctor"],
    "settle": ["settle", "1", "--why", "a change of machine"],
    "status": ["status"],
    "stack": ["stack", "bootstrap"],
    "cost": ["cost"],
    "worker": ["worker", "--pool", "cpu"],
    "deploy": ["deploy"],
    "schedule": ["schedule", "list"],
    "watch": ["watch"],
}


@pytest.fixture(scope="module")
def project(make_toy, tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("absent")).root


@pytest.fixture
def surroundings(project, monkeypatch):
    """The project as the place to be, and nothing named in the environment but its secrets."""
    handler = signal.getsignal(signal.SIGTERM)
    for name in [key for key in os.environ if key.startswith(("REMINT_", "MLFLOW_", "PREFECT_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(project)
    monkeypatch.setattr("flows.storage.s3.ATTEMPTS", 1)
    monkeypatch.setattr("flows.catalogue.database.RESTART_SECONDS", 0.0)
    os.environ.update(plain_secrets())
    yield
    signal.signal(signal.SIGTERM, handler)


def test_every_command_is_tried():
    assert set(COMMANDS) - {"ui"} <= set(COMMAND)


# `retrain` runs every stage before it asks the other servers, by the same functions as other commands;
# `stack bootstrap` asks S3 first, and for ten seconds
ASKED = {"retrain": ("catalogue", "MLflow", "Prefect"), "stack": ("production",)}
PAIRS = [(command, absent) for command in sorted(set(COMMAND) & set(COMMANDS)) for absent in ASKED.get(command, ABSENT)]


@pytest.mark.parametrize(("command", "absent"), PAIRS)
def test_a_command_whose_servers_are_absent_says_none(project, surroundings, command, absent):
    os.environ.update(ABSENT[absent])
    done = CliRunner().invoke(main, COMMAND[command])
    raised = "".join(traceback.format_exception(done.exception)) if done.exception else ""
    assert shown(done.output) == ""
    assert shown(raised) == ""
    assert kept(project) == {}
    assert done.exit_code in (0, 1, 2)
    assert done.exception is None or isinstance(done.exception, SystemExit), raised


def test_the_pages_show_an_address_without_its_password(surroundings, project):
    from flows import settings
    from flows.server import pages

    os.environ.update(ABSENT["MLflow"] | ABSENT["Prefect"])
    chosen = settings.load(project)
    for page in (pages.mlflow_page(chosen), pages.prefect_page(chosen)):
        assert "127.0.0.1" in page.address
        assert shown(page.address) == ""


def test_no_process_of_a_run_has_one_among_its_arguments(surroundings, project, monkeypatch):
    """Everybody on a machine can read them."""
    from flows import settings
    from flows.retrain import launch

    os.environ.update(ABSENT["MLflow-database"])
    chosen = settings.load(project)
    started = []

    def popen(command, **options):
        started.append(command)
        return SimpleNamespace()

    monkeypatch.setattr(subprocess, "Popen", popen)
    launch._open_tracking(chosen, settings.child_environment(chosen))
    assert len(started) == 1
    assert shown(" ".join(started[0])) == ""


def test_the_search_finds_what_it_should(tmp_path):
    root = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    assert kept(root) == {}
    (root / "log").write_bytes(b"\x00\xffpassword=" + PLAIN.format("x").encode() + b"\x00")
    subprocess.run(["git", "-C", str(root), "add", "log"], check=True)
    (root / "log").write_text(f"http://me:{QUOTED.format('x')}@there")
    assert set(kept(root)) == {"log", "git"}
    (root / "log").unlink()
    assert set(kept(root)) == {"git"}
