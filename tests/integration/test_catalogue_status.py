"""`remint status`: what is in production and what asks for attention, by number, not by time, through indexes."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import event

from data.core.params import UserError
from flows.catalogue import alarms, database, journal
from flows.catalogue.alarms import Alarm
from flows.catalogue.schema import Decision, Execution, Member, ModelVersion, Procedure, Release, Run
from flows.cli import main
from flows.settings import Settings
from flows.show import status as state

pytestmark = pytest.mark.integration
NOW = datetime(2026, 11, 21, 1, 24, tzinfo=UTC)
BIG = "model_version|decision|execution|edge|member|journal|release"  # tables that grow with every run


@pytest.fixture
def catalogue(tmp_path: Path, database_address: str) -> database.Catalogue:
    return database.open(Settings(root=tmp_path, catalogue=database_address))


def add_run(session, number: int, **changes) -> str:
    name = f"run-{number}"
    about = {"commit": "c", "base_commit": "b", "trigger": "retrain", "parameters": "p", "environment": "e"}
    about |= {"machine": "m", "state": "done", "started": NOW, "ended": NOW, "tag": f"run/{name}"} | changes
    session.add(Run(id=name, seq=number, **about))
    session.flush()
    for stage, action in (("scenes", "current"), ("tokenizer", "ran"), ("maskgit", "ran")):
        digests = {"input_digest": "i", "output_digest": "o"}
        session.add(Execution(run_id=name, stage=stage, seconds=1.0, host="h", action=action, **digests))
    return name


def add_version(session, name: str, number: int, run: str, verdict: str = "passed", family: str = "images") -> int:
    about = {"mlflow_run": "m", "tag": f"{name}@v{number}.0.0", "metrics": {"ssim": 0.9, "psnr": 24.0 + number}}
    row = ModelVersion(family=family, name=name, number=number, weights="w", run_id=run, created=NOW, **about)
    session.add(row)
    session.flush()
    decide(session, row.id, run, verdict)
    return row.id


def decide(session, version: int, run: str, verdict: str) -> None:
    about = {"against": None, "reason": "waits for approval", "rules": [], "created": NOW}
    session.add(Decision(version_id=version, run_id=run, verdict=verdict, **about))
    session.flush()


def add_release(session, number: int, run: str, when: datetime = NOW, family: str = "images", **versions: int) -> None:
    members = [Member(model=model, version=version, weights="w") for model, version in versions.items()]
    about = {"pointer": "p", "run_id": run, "who": "Ada", "why": "better", "restores": None, "created": when}
    session.add(Release(family=family, number=number, members=members, **about))
    session.flush()


def status_of(catalogue: database.Catalogue) -> state.Status:
    with catalogue.read() as session:
        return state.read(session, ["images", "depth"])


def test_an_empty_project_says_how_to_begin(catalogue):
    found = status_of(catalogue)
    assert state.text(found) == "depth: nothing in production\n\nimages: nothing in production"
    with catalogue.read() as session:
        assert state.text(state.read(session, [])) == "nothing was made here yet: remint retrain"


def test_production_is_the_release_of_the_highest_number_on_any_clock(catalogue):
    with catalogue.begin() as session:
        for number in (1, 2, 3):
            run = add_run(session, number)
            add_version(session, "tokenizer", number, run)
            add_release(session, number, run, NOW - timedelta(days=number), tokenizer=number)
        journal.append(session, "reproduction", "tokenizer@v3", {"verdict": "different"})
        journal.append(session, "reproduction", "tokenizer@v2", {"verdict": "different"})
        journal.append(session, "reproduction", "tokenizer@v3", {"verdict": "identical"})
    found = status_of(catalogue)
    assert found.production["depth"] is None
    assert found.production["images"].number == 3
    (member,) = found.production["images"].members
    assert (member.title, member.version) == ("tokenizer@v3", 3)
    words = state.text(found)
    assert "images #3: in production since 2026-11-18 01:24 UTC, by Ada" in words
    assert re.search(r"tokenizer +v3 +psnr 27 dB +reproduced: identical", words)
    assert [one.id for one in found.runs] == ["run-3", "run-2", "run-1"]
    assert "run-3  done  retrain  1 current, 2 ran" in words


def test_a_member_of_another_catalogue_is_shown_without_numbers(catalogue):
    with catalogue.begin() as session:
        add_release(session, 1, "run-of-another-machine", tokenizer=7)
    (member,) = status_of(catalogue).production["images"].members
    assert (member.title, member.metrics) == ("tokenizer@v7", {})
    assert "not reproduced yet" in state.text(status_of(catalogue))


def test_a_version_waits_until_its_last_decision_says_otherwise(catalogue):
    with catalogue.begin() as session:
        run = add_run(session, 1)
        version = add_version(session, "tokenizer", 1, run, "waiting")
        add_version(session, "maskgit", 1, run, "refused")
    (one,) = status_of(catalogue).waiting
    assert (one.model, one.version, one.run) == ("tokenizer", 1, "run-1")
    assert 'remint approve tokenizer v1 --why "..."' in state.text(status_of(catalogue))
    with catalogue.begin() as session:
        decide(session, version, run, "passed")
    assert status_of(catalogue).waiting == ()


def test_what_waited_before_production_was_judged_waits_no_longer(catalogue):
    with catalogue.begin() as session:
        for number, verdict in ((1, "waiting"), (2, "passed"), (3, "waiting")):
            run = add_run(session, number)
            add_version(session, "tokenizer", number, run, verdict)
            add_version(session, "depth-small", number, run, "waiting", family="depth")
        add_release(session, 1, "run-2", tokenizer=2)
    found = status_of(catalogue).waiting
    assert [(one.model, one.version) for one in found] == [
        ("depth-small", 1),
        ("depth-small", 2),
        ("tokenizer", 3),
        ("depth-small", 3),
    ]


def test_an_unfinished_promotion_and_a_failed_run_are_shown(catalogue):
    with catalogue.begin() as session:
        add_run(session, 1, state="failed")
        about = {"kind": "promote", "family": "images", "pointer": "", "before": {}, "created": NOW, "ended": None}
        session.add(Procedure(id="a", number=4, state="open", **about))
        session.add(Procedure(id="b", number=3, state="done", **about))
    words = state.text(status_of(catalogue))
    assert "promote images #4  since 2026-11-21 01:24 UTC  remint doctor --repair" in words
    assert "images #3" not in words
    assert "run-1  failed" in words


def alarm(catalogue: database.Catalogue) -> int:
    with catalogue.begin() as session:
        alarms.sound(session, Alarm("tokenizer", "i" * 64, ("a" * 64, "b" * 64), ("run-1", "run-2"), ("m", "m")))
    (found,) = status_of(catalogue).alarms
    return found.seq


def test_an_alarm_stands_until_it_is_settled_with_a_reason(catalogue):
    number = alarm(catalogue)
    assert f"#{number}  tokenizer: outputs {'a' * 12} and {'b' * 12} for one input (run-1 and run-2)" in state.text(
        status_of(catalogue)
    )
    catalogue.write(lambda session: alarms.acknowledge(session, number, "Ada", "another Pillow"))
    assert status_of(catalogue).alarms == ()
    with catalogue.read() as session:
        assert journal.verify(session) == []


@pytest.mark.parametrize(
    ("offset", "why", "says"),
    [(0, " ", "with a reason"), (1, "x", "is no alarm; open alarms: 1"), (7, "x", "is no alarm; open alarms: 1")],
)
def test_settling_what_is_no_open_alarm_is_a_mistake(catalogue, offset, why, says):
    number = alarm(catalogue)
    with catalogue.begin() as session:
        journal.append(session, "release", "images #1", {})
    with pytest.raises(UserError, match=says):
        catalogue.write(lambda session: alarms.acknowledge(session, number + offset, "Ada", why))


def test_an_alarm_is_settled_once(catalogue):
    number = alarm(catalogue)
    catalogue.write(lambda session: alarms.acknowledge(session, number, "Ada", "another Pillow"))
    with pytest.raises(UserError, match="was settled already; open alarms: none"):
        catalogue.write(lambda session: alarms.acknowledge(session, number, "Ada", "again"))


def test_no_query_of_the_status_reads_a_growing_table_from_end_to_end(tmp_path):
    """Sizes do not matter to SQLite's plan, so that a missing index shows on an empty catalogue."""
    catalogue = database.open(Settings(root=tmp_path))
    asked = []
    event.listen(catalogue.engine, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
    with catalogue.begin() as session:
        run = add_run(session, 1)
        add_version(session, "tokenizer", 1, run, "waiting")
        add_release(session, 1, run, tokenizer=1)
    asked.clear()
    status_of(catalogue)
    queries = [(words, values) for words, values in asked if words.startswith("SELECT")]
    assert len(queries) >= 7
    with catalogue.engine.connect() as connection:
        for words, values in queries:
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}", values)]
            scans = [step for step in plan if re.match(rf"SCAN ({BIG})\b", step) and "INDEX" not in step]
            assert not scans, f"{scans} in {words}"


def test_the_command_prints_both_forms_and_settles(tmp_path, monkeypatch):
    for words in (
        "init -q",
        "config user.name Ada",
        "config user.email ada@example.org",
        "add -A",
        "commit -q -m Start",
    ):
        if words == "add -A":
            (tmp_path / ".dvc").mkdir()
            for name in ("dvc.yaml", "params.yaml", ".dvc/config"):
                (tmp_path / name).write_text("{}\n" if name != ".dvc/config" else "")
        subprocess.run(["git", "-C", tmp_path, *words.split()], check=True)
    monkeypatch.chdir(tmp_path)
    number = alarm(database.open(Settings(root=tmp_path)))
    shown = CliRunner().invoke(main, ["status"])
    assert shown.exit_code == 0, shown.output
    assert "tokenizer: outputs" in shown.output
    values = json.loads(CliRunner().invoke(main, ["status", "--json"]).stdout)
    assert [one["subject"] for one in values["alarms"]] == ["tokenizer"]
    settled = CliRunner().invoke(main, ["settle", str(number), "--why", "another Pillow"])
    assert settled.exit_code == 0, settled.output
    assert json.loads(CliRunner().invoke(main, ["status", "--json"]).stdout)["alarms"] == []
    again = CliRunner().invoke(main, ["settle", str(number), "--why", "another Pillow"])
    assert again.exit_code == 2
    assert "was settled already" in again.stderr
