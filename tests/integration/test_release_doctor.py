"""The doctor: every disagreement between bucket, catalogue, MLflow and git is named; what can be repaired is."""

import json
import shutil
import socket
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import delete, select, update

from data.core.params import UserError
from flows import repository
from flows.catalogue import schema
from flows.cli import main
from flows.doctor import checks, registered
from flows.pipeline import run_record
from flows.release import killed, notify, pointers, procedure, stores, tags
from tests.released import git, places_agree, train

pytestmark = pytest.mark.integration


def found(places, repair=False):
    return [str(result) for result in checks.examine(places, repair)]


def release_run(places):
    return next(name for name in sorted(tags.read(places.settings.root)) if name.startswith("run/"))


def test_nothing_is_wrong_with_a_project_that_was_left_in_peace(places):
    assert found(places) == []
    done = CliRunner().invoke(main, ["doctor"])
    assert (done.exit_code, done.stdout) == (0, "Nothing is wrong.\n")


def alias_moved(places):
    places.mlflow().set_registered_model_alias("tokenizer", "production", "2")
    return "MLflow: tokenizer@production is v2, should be v1"


def alias_gone(places):
    places.mlflow().delete_registered_model_alias("maskgit", "production")
    return "MLflow: maskgit@production is not set, should be v1"


def alias_too_many(places):
    places.mlflow().set_registered_model_alias("maskgit", "previous", "2")
    return "MLflow: maskgit@previous is v2, should be not set"


def version_tag_gone(places):
    commit = tags.read(places.settings.root)["tokenizer@v1.0.0"]
    git(places.settings.root, "tag", "-d", "tokenizer@v1.0.0")
    return f"git: tokenizer@v1.0.0 is not there, should be at {commit[:12]}"


def version_tag_moved(places):
    root = places.settings.root
    commit, other = tags.read(root)["tokenizer@v2.0.0"], git(root, "rev-parse", "HEAD~3")
    git(root, "tag", "-f", "-a", "-m", "moved", "tokenizer@v2.0.0", other)
    return f"git: tokenizer@v2.0.0 is at {other[:12]}, should be at {commit[:12]}"


def assignment_gone(places):
    commit = tags.read(places.settings.root)["depth-small#production#1"]
    git(places.settings.root, "tag", "-d", "depth-small#production#1")
    return f"git: depth-small#production is not there, should be at {commit[:12]} (depth-small@v1.0.0)"


def run_tag_moved(places):
    root, tag = places.settings.root, release_run(places)
    commit, head = tags.read(root)[tag], git(root, "rev-parse", "HEAD")
    git(root, "tag", "-f", "-a", "-m", "moved", tag, "HEAD")
    return f"git: {tag} is at {head[:12]}, should be at {commit[:12]}"


def release_forgotten(places):
    with places.catalogue.begin() as session:
        session.execute(delete(schema.Member))
        session.execute(delete(schema.Release).where(schema.Release.family == "images"))
    pointer = pointers.digest(pointers.newest(places.bucket, "images"))
    return f"catalogue: images #1 is not there, should be pointer {pointer[:12]}"


def release_changed(places):
    with places.catalogue.begin() as session:
        session.execute(update(schema.Release).where(schema.Release.family == "images").values(why="because"))
    pointer = pointers.digest(pointers.newest(places.bucket, "images"))
    return f"catalogue: images #1 is otherwise than pointer {pointer[:12]}, should be pointer {pointer[:12]}"


def versions_forgotten(places):
    with places.catalogue.begin() as session:
        which = select(schema.ModelVersion.id).where(schema.ModelVersion.number == 2)
        session.execute(delete(schema.Edge).where(schema.Edge.version_id.in_(which)))
        session.execute(delete(schema.ModelVersion).where(schema.ModelVersion.number == 2))
    run = max(name for name in tags.read(places.settings.root) if name.startswith("run/")).removeprefix("run/")
    names = "depth-small v2, depth-teacher v2, maskgit v2, tokenizer v2"
    return f"catalogue: {names} of run {run} is not there, should be as in MLflow"


def stage_killed(places):
    from models.tracking import training_run

    client, folder = places.mlflow(), places.settings.runs / "r1"
    folder.mkdir()
    client.create_run(
        training_run.experiment(client, "depth"), tags={training_run.RUN: "r1", training_run.STAGE: "depth-teacher"}
    )
    return "MLflow: depth-teacher of run r1 is RUNNING, should be KILLED: its run is dead"


def worktree_left(places):
    folder = places.settings.worktrees / "r2"
    repository.git(places.settings.root, "worktree", "add", "--quiet", "--detach", str(folder), "HEAD")
    folder.with_suffix(".pid").write_text("1\n")
    return "worktree: r2 is left by a run that was killed, should be removed"


def pointer_lost(places):
    (places.settings.home / "production/releases/images/000001.json").unlink()
    return "bucket: images #1 is not there, should be pointer"


@pytest.mark.parametrize(
    "damage",
    [
        pointer_lost,
        alias_moved,
        alias_gone,
        alias_too_many,
        version_tag_gone,
        assignment_gone,
        release_forgotten,
        release_changed,
        versions_forgotten,
        stage_killed,
        worktree_left,
    ],
)
def test_a_disagreement_is_named_left_alone_and_on_request_repaired(places, damage):
    said = damage(places)
    assert said in "\n".join(found(places))
    assert found(places) == found(places)  # looking changes nothing
    assert all(line.startswith("repaired  ") for line in found(places, repair=True))
    assert found(places) == []
    assert places_agree(places, "images") == places_agree(places, "depth") == 1


@pytest.mark.parametrize("damage", [version_tag_moved, run_tag_moved])
def test_a_tag_that_was_moved_is_left_to_a_person_who_is_told_how(places, damage):
    root, before = places.settings.root, tags.read(places.settings.root)
    said = damage(places)
    (line,) = found(places, repair=True)
    assert line.startswith(f"wrong     {said}")
    (tag,) = (name for name, at in tags.read(root).items() if before[name] != at)  # nothing moved it back
    assert f"git tag -d '{tag}', then: remint doctor --repair" in line
    git(root, "tag", "-d", tag)
    assert [line[:9] for line in found(places, repair=True)] == ["repaired "]
    assert (tags.read(root), found(places)) == (before, [])


def test_the_command_says_what_would_be_repaired_and_its_exit_code_what_is_left(places):
    alias_moved(places)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1] == "To repair what can be: remint doctor --repair"
    listed = CliRunner().invoke(main, ["doctor", "--json", "--repair"])
    assert listed.exit_code == 0
    assert [(one["subject"], one["repaired"]) for one in json.loads(listed.stdout)] == [("tokenizer@production", True)]


def test_a_catalogue_that_was_lost_is_filled_from_the_log(places):
    (places.settings.home / "catalogue.db").unlink()
    with stores.opened(places.settings) as again:
        assert all(line.startswith("repaired  catalogue: ") for line in found(again, repair=True))
        assert found(again) == []
        assert places_agree(again, "images") == 1


def pointer_changed(places):
    path = places.settings.home / "production/releases/images/000001.json"
    text = path.read_text()
    path.unlink()
    path.write_text(text.replace('"why"', '"wyh"'))
    return "bucket: log of images is broken: "


def bundle_lost(places):
    member = pointers.newest(places.bucket, "images").members[0]
    shutil.rmtree(places.settings.home / f"production/bundles/maskgit/{member.bundle}")
    return "bucket: bundle of maskgit@v1.0.0 is not readable: "


def journal_changed(places):
    with closing(sqlite3.connect(places.settings.home / "catalogue.db")) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {name}")
        database.execute("UPDATE journal SET subject = 'images #9' WHERE seq = 1")
        database.commit()
    return "journal entry 1 (release of images #9) was changed"


def other_registry(places):
    places.mlflow().delete_registered_model_alias("tokenizer", "production")
    places.mlflow().set_model_version_tag("tokenizer", "1", "weights", "0" * 64)
    return "this registry has no version with the weights of the release"


def twins(places):
    client = places.mlflow()
    known = client.get_model_version("tokenizer", "1")
    client.create_model_version("tokenizer", client.get_run(known.run_id).info.artifact_uri, known.run_id, known.tags)
    with places.catalogue.begin() as session:
        one = session.scalars(select(schema.ModelVersion).filter_by(name="tokenizer", number=1)).one()
        same = {"name": "tokenizer", "family": "images", "weights": one.weights, "run_id": one.run_id, "metrics": {}}
        session.add(schema.ModelVersion(number=3, mlflow_run="", tag="", created=datetime.now(UTC), **same))
    return "MLflow: tokenizer v1 and v3 is one model twice"


@pytest.mark.parametrize("damage", [pointer_changed, bundle_lost, journal_changed, other_registry, twins])
def test_what_only_a_person_can_mend_is_named_and_left(places, damage):
    said = damage(places)
    lines = found(places, repair=True)
    assert any(line.startswith("wrong     ") and said in line for line in lines), lines
    assert CliRunner().invoke(main, ["doctor", "--repair"]).exit_code == 1


def test_a_version_whose_run_is_not_in_this_repository_is_named_and_left(places, monkeypatch):
    versions_forgotten(places)
    name = f"run/20260101T000009Z-{'a' * 7}"
    places.mlflow().set_model_version_tag("tokenizer", "2", "git_tag", name)
    assert len(found(places)) == 1  # of tokenizer v2 nothing is said: another machine may be at work on it
    monkeypatch.setattr(registered, "YOUNG_SECONDS", 0.0)
    own, foreign = sorted(found(places, repair=True), key=lambda line: "tokenizer v2" in line)
    assert own.startswith("repaired  catalogue: depth-small v2, depth-teacher v2, maskgit v2 of run ")
    assert foreign.startswith(f"wrong     catalogue: tokenizer v2 of run {name[4:]} is not there")
    assert "git fetch --tags" in foreign


def test_a_run_tag_in_mlflow_that_is_no_file_name_is_nobodys_run(places):
    from models.tracking import training_run

    client = places.mlflow()
    for name in ("r" * 3000, "../runs", "a\0b"):
        client.create_run(
            training_run.experiment(client, "depth"), tags={training_run.RUN: name, training_run.STAGE: "s"}
        )
    assert found(places) == []


def test_a_registry_that_does_not_answer_is_a_finding_and_the_rest_is_examined(places, monkeypatch):
    version_tag_gone(places)
    monkeypatch.setenv("REMINT_MLFLOW_URI", "http://127.0.0.1:9")
    done = CliRunner().invoke(main, ["doctor", "--repair"])
    assert done.exit_code == 1
    assert "wrong     MLflow: images is not to be asked: MLflow's registry cannot be asked" in done.stdout
    assert "repaired  git: tokenizer@v1.0.0" in done.stdout


def test_a_run_that_stopped_before_its_release_is_finished(places):
    ran = train(places.settings, 3)
    assert found(places) == [
        f"wrong     run: {ran.id} is recorded, and stopped before its models were released, should be finished"
    ]
    assert len(found(places, repair=True)) == 1
    assert places_agree(places, "images") == places_agree(places, "depth") == 2
    assert pointers.newest(places.bucket, "images").run == ran.id
    noted = run_record.load(places.settings, ran.id)
    assert noted is not None
    assert noted.finished


def second(places):
    """A release after the first."""
    first = pointers.read(places.bucket, "images", 1)
    return replace(first, number=2, previous=pointers.digest(first), procedure="images-2-abc")


def open_procedure(places, host, age):
    """A promotion that was begun and not ended."""
    pointer = second(places)
    with places.catalogue.begin() as session:
        session.add(
            schema.Procedure(
                id="images-2-abc",
                kind="promote",
                family="images",
                number=2,
                pointer=pointers.text(pointer),
                before={"host": host},
                state="open",
                created=datetime.now(UTC) - age,
            )
        )


def test_a_promotion_of_another_machine_is_given_an_hour(places):
    open_procedure(places, "elsewhere", timedelta(minutes=50))
    assert found(places) == []
    with places.catalogue.begin() as session:
        session.execute(update(schema.Procedure).values(created=datetime.now(UTC) - timedelta(minutes=70)))
        session.execute(update(schema.Procedure).where(schema.Procedure.id != "images-2-abc").values(state="done"))
    assert found(places) == ["wrong     procedure: promote to images #2 is interrupted, should be ended"]
    assert found(places, repair=True) == ["repaired  procedure: promote to images #2 is interrupted, should be ended"]
    assert found(places) == []


def test_a_release_that_is_completed_is_told_once(places, monkeypatch):
    told = []
    monkeypatch.setattr(notify, "tell", lambda settings, notices: told.extend(notices))
    open_procedure(places, socket.gethostname(), timedelta(seconds=1))
    pointers.append(places.bucket, second(places))  # its process died after this
    found(places, repair=True)
    assert found(places, repair=True) == []
    (notice,) = told
    assert (notice.event, notice.subject, notice.trigger) == ("released", "images", "promote")
    assert notice.text == "images #2: completed after its promote was interrupted"
    assert notice.details["number"] == 2
    told_before = notify.of_pointer(second(places), "images #2: released, tokenizer v1 -> v2", "schedule")
    assert told_before.to_json()["id"] == notice.to_json()["id"]  # where its process lived, and could not end it


def test_a_release_that_another_catalogue_made_is_followed_once_it_is_accepted(places):
    """Its log is right, but nobody here can tell: it may as well be forged."""
    pointers.append(places.bucket, second(places))
    (line,) = found(places, repair=True)
    assert "images #2 is pointer" in line
    assert "which no procedure of this catalogue made" in line
    assert "remint doctor --accept images@2" in line
    with pytest.raises(UserError, match="images@1 is no release of which the catalogue never heard"):
        checks.accept(places, "images", 1)
    assert CliRunner().invoke(main, ["doctor", "--accept", "images@x"]).exit_code == 2
    assert CliRunner().invoke(main, ["doctor", "--accept", "images@2", "--repair"]).exit_code == 0
    assert found(places) == []
    assert places_agree(places, "images") == 2


def test_bundles_of_a_release_whose_pointer_is_gone_are_not_collected(places):
    from flows.garbage import releases
    from flows.garbage.place import InTheWay, Place

    pointer_lost(places)
    with pytest.raises(InTheWay, match=r"images #1 is not there.*remint doctor --repair"):
        list(releases.find(Place(places.settings, frozenset(), 0.0, 0.0)))


def test_a_mark_of_a_promotion_that_died_before_it_was_open_goes(places):
    with killed.held(places.settings, "images-2-dead"):
        assert procedure.abandoned(places) == []  # it lives
    assert procedure.abandoned(places) == ["images-2-dead"]
    assert len(found(places, repair=True)) == 1
    assert found(places) == []
