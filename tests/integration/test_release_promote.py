"""Promote, roll back, look back: what each leaves in bucket, catalogue, MLflow and git, and what each refuses."""

import json
import shutil
import stat
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import select

from data.core.params import UserError
from flows.catalogue import journal, schema
from flows.cli import main
from flows.doctor import checks, registered
from flows.release import bundle, killed, of_run, pointers, promote, recorded, rollback, stores, tags
from flows.settings import Settings
from tests.released import ARTIFACTS, finished, git, places_agree, train

pytestmark = pytest.mark.integration


def remint(*words):
    return CliRunner().invoke(main, words, catch_exceptions=False)


def aliases(places, name):
    return {k: int(v) for k, v in places.mlflow().get_registered_model(name).aliases.items()}


def entries(places):
    with places.catalogue.read() as session:
        return [(e.kind, e.subject) for e in session.scalars(select(schema.Entry).order_by(schema.Entry.seq))]


def newest_run(places):
    return max(name for name in tags.read(places.settings.root) if name.startswith("run/"))


def test_the_newest_run_is_promoted_whole_and_every_place_says_so(places):
    root = places.settings.root
    (root / "params.yaml").write_text("seed: 99\n")  # a checkout with changes of its own
    done = remint("promote", "images", "--why", "sharper")
    assert (done.exit_code, done.stdout) == (0, "images #2: released, maskgit v1 -> v2, tokenizer v1 -> v2\n")
    assert places_agree(places, "images") == 2
    assert places_agree(places, "depth") == 1
    assert aliases(places, "tokenizer") == aliases(places, "maskgit") == {"production": 2, "previous": 1}
    assert aliases(places, "depth-small") == {"production": 1}
    there = tags.read(root)
    assert there["tokenizer#production#2"] == there["tokenizer@v2.0.0"] == there[newest_run(places)]
    assert entries(places)[-1] == ("release", "images #2")
    with places.catalogue.read() as session:
        assert journal.verify(session) == []
        row = session.scalars(select(schema.Procedure).where(schema.Procedure.number == 2)).one()
        assert (row.state, row.kind, row.before["aliases"]["tokenizer"]) == ("done", "promote", {"production": 1})
        assert {step.name for step in row.steps} == {"bundles", "pointer", "catalogue", "MLflow", "git"}
    assert (root / "params.yaml").read_text() == "seed: 99\n"
    assert killed.left_behind(places.settings) == []


def test_what_stands_is_not_released_again(places):
    assert remint("promote", "images").exit_code == 0
    again = remint("promote", "images", "--json")
    assert again.exit_code == 0
    outcome = json.loads(again.stdout)
    assert (outcome["state"], outcome["release"]["number"]) == ("standing", 2)
    assert "released by" in outcome["reason"]
    assert len(pointers.log(places.bucket, "images")) == 2


def test_a_generator_with_the_old_weights_and_a_new_tokenizer_is_a_version_of_its_own(places):
    """A tokenizer whose decoder alone was trained again gives the same tokens, so the generator the same weights."""
    ran = train(places.settings, 3, keep=("maskgit",))
    made = finished(places, ran)
    by_name = {one.model.name: one for one in made.registered}
    assert (by_name["tokenizer"].version, by_name["maskgit"].version) == (3, 3)
    assert by_name["maskgit"].new
    assert by_name["maskgit"].tags["gto_tag"] == "maskgit@v3.0.0"
    assert [one.state for one in made.outcomes if one.family == "images"] == ["released"]
    released = pointers.newest(places.bucket, "images")
    assert released is not None
    members = {member.model: member for member in released.members}
    assert members["maskgit"].version == 3
    named = bundle.read(places.bucket, "maskgit", members["maskgit"].bundle)
    assert named.lineage.parents == {"tokenizer": members["tokenizer"].weights}
    assert places_agree(places, "images") == released.number
    assert aliases(places, "maskgit")["production"] == 3
    assert not list(registered.twins(places))  # the same weights, and no twins
    assert rollback.rollback(places, "images", None, "me", "").state == "released"
    assert aliases(places, "maskgit")["production"] == 1


def test_a_rollback_is_a_new_release_of_the_old_models_and_can_be_taken_back(places):
    remint("promote", "images")
    done = remint("rollback", "images", "--why", "wires break")
    assert (done.exit_code, done.stdout) == (0, "images #3: restores images #1: maskgit v1, tokenizer v1\n")
    assert places_agree(places, "images") == 3
    assert aliases(places, "tokenizer") == {"production": 1, "previous": 2}
    log = pointers.log(places.bucket, "images")
    assert (log[2].restores, log[2].members, log[2].run) == (1, log[0].members, log[0].run)
    assert entries(places)[-1] == ("rollback", "images #3")
    assert remint("rollback", "images").stdout == "images #4: restores images #2: maskgit v2, tokenizer v2\n"
    shown = remint("history", "images").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["release", "#4", "#3", "#2", "#1"]
    assert "maskgit v2 -> v1, tokenizer v2 -> v1" in shown[2]
    assert "restores #1; wires break" in shown[2]
    listed = json.loads(remint("history", "images", "--json").stdout)
    assert [one["previous"] for one in listed[1:]] == [one["digest"] for one in listed[:-1]]


def test_where_workers_run_the_stages_a_release_by_hand_tells_origin(places, tmp_path, monkeypatch):
    root, origin = places.settings.root, tmp_path / "origin.git"
    monkeypatch.setenv("REMINT_STAGES", "workers")
    missing = remint("promote", "images")
    assert missing.exit_code == 2
    assert "has no remote 'origin'" in missing.stderr
    git(root, "clone", "-q", "--bare", ".", str(origin))
    git(root, "remote", "add", "origin", str(origin))
    for words in (("promote", "images"), ("rollback", "images")):
        assert remint(*words).exit_code == 0
        assert set(git(root, "tag", "-l", "*#production#*").split()) <= set(git(origin, "tag", "-l").split()), words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["promote", "image"], "no family 'image'; did you mean 'images'?"),
        (["rollback", "dept"], "no family 'dept'; did you mean 'depth'?"),
        (["history", "imagse"], "no family 'imagse'; did you mean 'images'?"),
        (["promote", "images", "20260101T000003Z-0000000"], "did you mean '20260101T00000"),
        (["promote", "images", "yesterday"], "no run 'yesterday'; the newest: 20260101T000002Z-"),
        (["rollback", "images"], "images was never released with other models than now"),
        (["rollback", "images", "--to", "7"], "images has no release #7; it has only #1: remint history images"),
        (["rollback", "images", "--to", "1"], "images #1 is what stands in production: there is nothing to roll back"),
    ],
)
def test_a_wrong_name_or_number_is_a_line_that_says_what_there_is(places, words, says):
    done = remint(*words)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(pointers.log(places.bucket, "images")) == 1


def test_the_release_that_stands_is_not_restored_under_another_number(places):
    remint("promote", "images")
    remint("rollback", "images")
    with pytest.raises(UserError, match="images #3 is what stands in production, with the same models as images #1"):
        rollback.rollback(places, "images", 1, "me")


def test_nothing_in_production_cannot_be_rolled_back(places):
    shutil.rmtree(places.settings.home / "production/releases/depth")
    with pytest.raises(UserError, match="nothing of depth is in production"):
        rollback.rollback(places, "depth", None, "me")


def test_a_run_whose_tag_was_moved_or_deleted_is_refused_and_the_doctor_puts_it_back(places):
    root, tag = places.settings.root, newest_run(places)
    commit = tags.read(root)[tag]
    git(root, "tag", "-f", "-a", "-m", "moved", tag, "HEAD~1")
    with pytest.raises(UserError, match=rf"{tag} was moved to commit .*, the run was recorded with {commit[:12]}"):
        recorded.find(places, tag)
    git(root, "tag", "-f", tag, "HEAD~1")
    with pytest.raises(UserError, match=rf"{tag} is not annotated, as a run's is; git tag -d {tag}, then: remint doc"):
        recorded.find(places, tag)
    git(root, "tag", "-d", tag)
    with pytest.raises(UserError, match=rf"its tag {tag} was deleted or not fetched"):
        recorded.find(places, None)
    done = remint("doctor", "--repair")
    assert (done.exit_code, done.stdout) == (0, f"repaired  git: {tag} is not there, should be at {commit[:12]}\n")
    assert recorded.find(places, None).commit == commit


def test_outputs_that_are_in_no_cache_here_are_named_with_the_way_to_bring_them(places):
    shutil.rmtree(places.settings.root / ".dvc/cache/files")
    done = remint("promote", "images")
    assert done.exit_code == 2
    assert "artifacts/tokenizer/model, artifacts/generator/maskgit/model not in DVC's cache here" in done.stderr
    assert "dvc remote add" in done.stderr
    git(places.settings.root, "config", "--file", ".dvc/config", "remote.there.url", "/nowhere")
    assert places_agree(places, "images") == 1


def test_a_shallow_clone_says_that_it_lacks_the_runs(places, tmp_path):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", "--no-tags", f"file://{places.settings.root}", str(clone))
    with stores.opened(Settings(root=clone)) as there, pytest.raises(UserError, match="shallow.*--unshallow --tags"):
        recorded.find(there, None)


def test_a_clone_without_a_catalogue_promotes_what_its_tags_and_outputs_hold(places, tmp_path):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(places.settings.root), str(clone))
    shutil.copytree(places.settings.root / ".dvc/cache", clone / ".dvc/cache")
    with stores.opened(Settings(root=clone)) as there:
        found = recorded.find(there, newest_run(places))
        assert found.id == newest_run(places).removeprefix("run/")
        assert found.commit == tags.read(clone)[found.tag]
        outcome = of_run.promote_run(there, "depth", None, "me", "")
        assert (outcome.state, outcome.release.number) == ("released", 1)
        assert places_agree(there, "depth") == 1


def with_policy(places, policy):
    """A recorded run with the newest one's outputs and another policy."""
    root = places.settings.root
    (root / "mlflow/promotion.yaml").write_text(yaml.safe_dump(policy))
    git(root, "commit", "-q", "-m", "policy", "--", "mlflow/promotion.yaml")
    train(places.settings, 3, keep=ARTIFACTS)


def test_a_family_that_the_gates_refuse_stays_as_it_was_and_says_why(places):
    with_policy(places, {"maskgit": {"thresholds": {"gfwd": 0.1}}})
    done = remint("promote", "images")
    assert done.exit_code == 1
    assert "images: not released: " in done.stdout
    assert "maskgit v2: gfwd <= 0.1 failed: 0.2" in done.stdout
    assert "images #1 stands" in done.stdout
    assert places_agree(places, "images") == 1


def test_a_family_that_waits_for_approval_says_so(places):
    with_policy(places, {"maskgit": {"approval": "required"}})
    done = remint("promote", "images")
    assert done.exit_code == 1
    assert "images: not released yet: " in done.stdout
    assert "maskgit v2 waits for approval" in done.stdout


def test_a_mistake_in_the_runs_policy_is_named(places):
    with_policy(places, {"maskgit": {"thresholds": {"gfdw": 0.1}}})
    done = remint("promote", "images")
    assert done.exit_code == 2
    assert "'gfdw' is not a metric; did you mean 'gfwd'?" in done.stderr


def test_a_broken_chain_names_the_release(places):
    remint("promote", "images")
    path = places.settings.home / "production/releases/images/000001.json"
    path.chmod(path.stat().st_mode | stat.S_IWUSR)
    path.write_text(path.read_text().replace('"why": "retrain"', '"why": "because"'))
    done = remint("history", "images")
    assert done.exit_code == 2
    assert "release 2 of images follows a release 1 of digest" in done.stderr
    assert "release 2 of images follows" in remint("rollback", "images").stderr
    path.unlink()
    assert "release 1 of images is missing" in remint("history", "images").stderr


def test_a_registry_that_does_not_answer_stops_a_promotion_before_anything_changed(places, monkeypatch):
    monkeypatch.setenv("REMINT_MLFLOW_URI", "http://127.0.0.1:9")
    done = remint("promote", "images")
    assert done.exit_code == 2
    assert "does not answer" in done.stderr
    assert places_agree(places, "images") == 1


def test_a_place_that_fails_after_the_release_is_named_and_made_up_for(places, monkeypatch):
    def refuse(*_):
        raise MlflowException("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", refuse)
        done = remint("promote", "images")
    assert done.exit_code == 1
    assert "images #2: released" in done.stdout
    assert "not followed everywhere (MLflow's registry failed: no space left)" in done.stderr
    assert "remint doctor --repair" in done.stderr
    assert not tags.in_git(places, "images", pointers.log(places.bucket, "images"))
    assert len(killed.left_behind(places.settings)) == 1
    assert all(result.repaired for result in checks.examine(places, repair=True))
    assert places_agree(places, "images") == 2
    assert killed.left_behind(places.settings) == []


def test_a_promotion_from_an_older_state_loses_and_says_who_won(places):
    base = pointers.newest(places.bucket, "images")
    won = of_run.promote_run(places, "images", None, "Ada", "")
    with recorded.opened(places, recorded.find(places, None)) as ran:
        late = pretend(places, ran, base)
    assert late.state == "lost"
    assert f"images #2 was made by Ada at {won.release.at}, from run {won.release.run}" in str(late)
    assert late.release == won.release
    with places.catalogue.read() as session:
        states = session.scalars(select(schema.Procedure.state).where(schema.Procedure.family == "images")).all()
    assert sorted(states) == ["done", "done", "undone"]
    assert places_agree(places, "images") == 2


def pretend(places, ran, base):
    """The end of a promotion that was judged when `base` stood."""
    from flows.release import of_run

    made = of_run.register(places, ran, [], [], "images")
    return promote.promote(places, ran, "images", made.registered, [], base, "Bob")


def test_a_bucket_behind_the_catalogue_takes_no_release(places):
    """As after a bucket was put back from an old copy: going on would fork the history."""
    remint("promote", "images")
    (Path(places.settings.production) / "releases/images/000002.json").unlink()
    done = remint("promote", "images")
    assert done.exit_code == 2
    assert "images #2 is not there, should be pointer" in done.stderr


def test_a_slower_writer_on_another_machine_leaves_no_older_alias(places, tmp_path, monkeypatch):
    """It has read the log before the rollback and moves the alias after it."""
    here = places.settings
    others = {"mlflow_uri": here.mlflow_uri, "catalogue": here.catalogue, "production": here.production}
    elsewhere = Settings(root=here.root, home=tmp_path / "elsewhere", **others)
    elsewhere.home.mkdir()
    move, calls = MlflowClient.set_registered_model_alias, []

    def slow(client, name, alias, version):
        calls.append((name, alias, version))
        if len(calls) == 1:
            with stores.opened(elsewhere) as faster:
                rollback.rollback(faster, "images", None, "somebody faster")
        move(client, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", slow)
    assert of_run.promote_run(places, "images", None, "me", "").release.number == 2
    assert calls[0] == ("maskgit", "production", "2")
    assert places_agree(places, "images") == 3
    assert aliases(places, "maskgit") == {"production": 1, "previous": 2}


def test_releases_on_s3_follow_the_same_rules(places, request, monkeypatch):
    from flows.storage import bucket

    monkeypatch.setenv("REMINT_PRODUCTION", request.getfixturevalue("s3_address"))
    with stores.opened(Settings(root=places.settings.root)) as there:
        assert there.bucket.name.startswith("s3://")
        folder = Path(places.settings.production)
        for key in bucket.at(str(folder)).list(""):
            there.bucket.upload(key, folder / key)
        assert of_run.promote_run(there, "images", None, "me", "").state == "released"
        assert places_agree(there, "images") == 2
        assert rollback.rollback(there, "images", None, "me").release.number == 3
        assert places_agree(there, "images") == 3
        assert not list(checks.examine(there))
