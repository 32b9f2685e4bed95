"""`remint lineage` in a repository with two runs: down to data, code and parents, and up to what must be withdrawn."""

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from sqlalchemy.orm import Session

from flows import settings
from flows.catalogue import database, reference
from flows.catalogue.registered import Registered
from flows.catalogue.schema import DataVersion, Edge, Execution, Member, ModelVersion, Photograph, Release, Run
from flows.cli import main
from flows.pipeline import families
from flows.pipeline import lock as stages
from flows.retrain import report
from flows.show.lineage import down, up

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
WHEN = datetime(2026, 11, 21, 1, 24, tzinfo=UTC)
BEACH, WHEEL = hashlib.sha256(b"beach").hexdigest()[:12], hashlib.sha256(b"wheel").hexdigest()[:12]


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True).stdout.strip()


def weights(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def recorded(root: Path, name: str, steps: int) -> tuple[str, str]:
    """A commit of the user's and the run's own commit on it, tagged as a run does; the branch holds the first."""
    git(root, "commit", "-q", "--allow-empty", "-m", f"before {name}")
    base = git(root, "rev-parse", "HEAD")
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())
    lock["stages"]["generator@maskgit"]["params"]["params.yaml"]["generator.maskgit"]["steps"] = steps
    git(root, "checkout", "-q", "--detach")
    (root / "dvc.lock").write_text(yaml.safe_dump(lock))
    git(root, "add", "dvc.lock")
    environment = {"torch": "2.13.0+cpu", "python": "CPython 3.11.2", "lock": "c" * 64}
    worker = environment | {"arch": "x86_64", "kernels": "avx512", "gpu": "NVIDIA H200, driver 570.1"}
    told = f"Environment: {json.dumps(environment)}\nStage-Environments: "
    told += json.dumps([{"stages": ["depth-student@small"], "environment": worker}])
    git(root, "commit", "-q", "-m", f"Record {name}", "-m", told)
    commit = git(root, "rev-parse", "HEAD")
    git(root, "tag", "-a", "-m", name, f"run/{name}")
    git(root, "checkout", "-q", "main")
    return base, commit


def fill(session: Session, commits: dict[str, tuple[str, str]]) -> None:
    """Run a made all four models; run b, with one more photograph, made maskgit and the student again."""
    scenes = data(session, "scenes", "5" * 32, 2240, 21_267_310)
    photos = data(session, "photos", "a1" * 16, 600, 4_000_000)
    more = data(session, "photos", "a2" * 16, 700, 5_000_000, photos.id)
    session.add_all(
        Photograph(data_id=version.id, photo=photo, name=name)
        for version, photo, name in (
            (photos, WHEEL, "wheel.jpg"), (more, WHEEL, "wheel.jpg"), (more, BEACH, "holiday/beach.jpg"),
        )
    )  # fmt: skip
    for seq, (name, (base, commit)) in enumerate(commits.items(), start=1):
        session.add(
            Run(
                id=name, seq=seq, tag=f"run/{name}", commit=commit, base_commit=base, trigger="retrain",
                parameters="b" * 64, environment="e" * 64, machine="x86_64 AuthenticAMD avx512", state="done",
                started=WHEN, ended=WHEN,
            )
        )  # fmt: skip
    session.flush()
    executions(session)
    add(session, "images", "tokenizer", 1, "a", {"scenes": scenes.digest}, {})
    add(session, "images", "maskgit", 1, "a", {"scenes": scenes.digest}, {"tokenizer": "tokenizer v1"})
    add(session, "depth", "depth-teacher", 1, "a", {"scenes": scenes.digest}, {})
    both = {"scenes": scenes.digest, "photos": photos.digest}
    add(session, "depth", "depth-small", 1, "a", both, {"depth-teacher": "depth-teacher v1"})
    add(session, "images", "maskgit", 2, "b", {"scenes": scenes.digest}, {"tokenizer": "tokenizer v1"})
    both = {"scenes": scenes.digest, "photos": more.digest}
    add(session, "depth", "depth-small", 2, "b", both, {"depth-teacher": "depth-teacher v1"})
    release(session, "images", 1, None, {"tokenizer": 1, "maskgit": 1})
    release(session, "images", 2, None, {"tokenizer": 1, "maskgit": 2})
    release(session, "depth", 1, None, {"depth-small": 1, "depth-teacher": 1})
    release(session, "depth", 2, None, {"depth-small": 2, "depth-teacher": 1})
    release(session, "depth", 3, 1, {"depth-small": 1, "depth-teacher": 1})


def executions(session: Session) -> None:
    """Each stage of the graph took a minute, and two of CPU time; what `photos` took was not written down."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    for stage, entry in lock.items():
        digests = {"input_digest": stages.input_digest(entry), "output_digest": "o"}
        if stage == "generator@maskgit":
            entry["params"]["params.yaml"]["generator.maskgit"]["steps"] = 1400
            digests["input_digest"] = stages.input_digest(entry)
        took = {} if stage == "photos" else {"machine_seconds": 60.0, "cpu_seconds": 120.0}
        session.add(Execution(run_id="a", stage=stage, action="ran", seconds=60.0, host="h", **digests, **took))


def data(session: Session, stage: str, digest: str, rows: int, size: int, parent: int | None = None) -> DataVersion:
    row = DataVersion(
        stage=stage, digest=f"{digest}.dir", rows=rows, bytes=size, verdict="passed", parent_id=parent, created=WHEN
    )
    session.add(row)
    session.flush()
    return row


def add(session: Session, family: str, name: str, number: int, run: str, made_from: dict, parents: dict) -> None:
    version = ModelVersion(
        family=family, name=name, number=number, weights=weights(f"{name} v{number}"), run_id=run, mlflow_run="m",
        tag=f"{name}@v{number}.0.0", metrics={}, created=WHEN,
    )  # fmt: skip
    version.edges = [Edge(kind="data", name=stage, digest=digest) for stage, digest in made_from.items()]
    version.edges += [Edge(kind="parent", name=parent, digest=weights(which)) for parent, which in parents.items()]
    session.add(version)
    session.flush()


def release(session: Session, family: str, number: int, restores: int | None, members: dict[str, int]) -> None:
    row = Release(
        family=family, number=number, restores=restores, pointer="p" * 64, run_id="a", who="test", why="test",
        created=WHEN,
    )  # fmt: skip
    row.members = [Member(model=m, version=v, weights=weights(f"{m} v{v}")) for m, v in members.items()]
    session.add(row)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with two runs, and its catalogue."""
    root = tmp_path_factory.mktemp("project")
    git(root, "init", "-q", "-b", "main")
    for name in ("dvc.yaml", "params.yaml", "dvc.lock", ".dvc/config"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text((ROOT / name).read_text())
    (root / ".gitignore").write_text("/.remint\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "start")
    commits = {"a": recorded(root, "a", 1400), "b": recorded(root, "b", 2800)}
    catalogue = database.open(settings.load(root))
    with catalogue.begin() as session:
        fill(session, commits)
    catalogue.close()
    return root


@pytest.fixture
def remint(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(project)
    return lambda *words: CliRunner().invoke(main, ["lineage", *words], catch_exceptions=False)


def test_the_tree_goes_down_to_data_code_parameters_and_parents(remint, project):
    done = remint("maskgit@production")
    assert done.exit_code == 0, done.stderr
    text = done.stdout
    assert text.startswith("maskgit v2  in production, images release 2\n")
    assert re.search(r"weights +" + weights("maskgit v2") + r"  maskgit@v2.0.0", text)
    assert re.search(r"commit +" + git(project, "rev-parse", "run/b^{commit}"), text)
    assert re.search(r"environment +e{12}  x86_64 AuthenticAMD avx512\n", text)
    assert "python CPython 3.11.2, torch 2.13.0+cpu, requirements.lock cccccccccccc\n" in text
    assert "steps=2800" in text
    assert re.search(r"scenes +5{32}.dir  2,240 rows, 21.3 MB, validation passed", text)
    parent = text[text.index("└─ tokenizer v1") :]
    assert weights("tokenizer v1") in parent
    assert "tokenizer-warmup" in parent
    assert "generator" not in parent


def test_of_a_stage_that_a_worker_ran_the_workers_environment_is_shown(remint):
    found = json.loads(remint("depth-small@v2", "--json").stdout)
    made, parent = found["made"], found["parents"][0]["made"]
    assert made["machine"] == "x86_64 unknown avx512 NVIDIA H200"
    assert (parent["machine"], parent["environment"]) == ("x86_64 AuthenticAMD avx512", "e" * 64)
    assert len(made["environment"]) == 64


def test_json_holds_every_digest_and_only_the_parameters_of_the_models_own_stages(remint):
    found = json.loads(remint("maskgit@v1", "--json").stdout)
    assert found["weights"] == weights("maskgit v1")
    assert set(found["parameters"]) == {"generator@maskgit", "tokens", "scenes"}
    assert found["parameters"]["generator@maskgit"]["net.dim"] == 128
    (parent,) = found["parents"]
    assert parent["weights"] == weights("tokenizer v1")
    assert set(parent["parameters"]) == {"tokenizer", "tokenizer-warmup", "proxy", "scenes"}
    assert found["releases"] == [{"family": "images", "number": 1, "now": False}]


def test_a_model_cost_what_all_stages_did_that_it_needs(remint):
    cost = json.loads(remint("maskgit@v1", "--json").stdout)["cost"]
    needed = ["generator@maskgit", "tokens", "tokenizer", "scenes", "tokenizer-warmup", "proxy", "validate", "photos"]
    assert sorted(cost["stages"]) == sorted(needed)
    assert cost["unknown"] == ["photos"]
    assert (cost["spent"]["seconds"], cost["spent"]["cpu_seconds"]) == (7 * 60, 7 * 120)
    said = r"cost +7 min of machines, 14 min of CPU time, 7 stages; not known of photos"
    assert re.search(said, remint("maskgit@v1").stdout)
    later = json.loads(remint("maskgit@v2", "--json").stdout)["cost"]  # nobody noted what its generator took
    assert sorted(later["unknown"]) == ["generator@maskgit", "photos"]


def test_a_rollback_decides_what_production_and_previous_mean(remint):
    assert remint("depth-small@production").stdout.startswith("depth-small v1  in production, depth release 3")
    assert remint("depth-small@previous").stdout.startswith("depth-small v2  was in depth release 2")
    assert remint("depth-small").stdout.startswith("depth-small v1  in production")


def test_a_model_that_left_its_family_is_not_in_production_any_more(remint, project):
    catalogue = database.open(settings.load(project))
    with catalogue.begin() as session:
        add(session, "video", "clips", 1, "a", {}, {})
        add(session, "video", "frames", 1, "a", {}, {})
        release(session, "video", 1, None, {"clips": 1, "frames": 1})
        release(session, "video", 2, None, {"frames": 1})
    catalogue.close()
    assert remint("clips").stdout.startswith("clips v1  was in video release 1\n")
    assert "clips has no production version" in remint("clips@production").stderr
    assert remint("clips@previous").exit_code == 0


def test_a_model_in_production_that_the_catalogue_does_not_know_is_named(remint, project):
    catalogue = database.open(settings.load(project))
    with catalogue.begin() as session:
        release(session, "sound", 1, None, {"speech": 4})
    catalogue.close()
    done = remint("--photo", "wheel.jpg")
    assert "note: speech v4 of sound release 1 is in production and not in this catalogue" in done.stdout


def test_a_photograph_is_found_in_what_is_in_production_and_in_what_was(remint):
    done = remint("--photo", "wheel.jpg")
    assert done.exit_code == 0
    assert "In production now: depth-small v1 (depth release 3)." in done.stdout
    assert re.search(r"depth-small +v2 +directly +- +2 ", done.stdout)
    assert "maskgit" not in done.stdout


def test_a_photograph_is_named_by_its_file_wherever_it_lies(remint, tmp_path):
    (tmp_path / "IMG_1.jpg").write_bytes(b"beach")
    found = json.loads(remint("--photo", str(tmp_path / "IMG_1.jpg"), "--json").stdout)
    assert found["asked"] == f"photograph holiday/beach.jpg (digest {BEACH})"
    (holder,) = found["holders"]
    assert (holder["model"], holder["version"], holder["now"], holder["releases"]) == ("depth-small", 2, None, [2])
    assert remint("--photo", hashlib.sha256(b"beach").hexdigest()[:7]).exit_code == 0
    assert remint("--photo", hashlib.sha256(b"beach").hexdigest()).exit_code == 0


def test_a_file_in_no_data_version_says_so_and_names_its_namesake(remint, tmp_path):
    (tmp_path / "beach.jpg").write_bytes(b"another beach")
    done = remint("--photo", str(tmp_path / "beach.jpg"))
    assert done.exit_code == 1
    assert "No model version contains it." in done.stdout
    assert f"a photograph of that name has other bytes: {BEACH}" in done.stdout


def test_data_reaches_a_model_through_its_parent(remint, project):
    """Edges name only what a version's own stages read, as another recorder might write them."""
    catalogue = database.open(settings.load(project))
    with catalogue.begin() as session:
        add(session, "images", "samba", 1, "b", {}, {"tokenizer": "tokenizer v1"})
    done = remint("--data", "5555")
    catalogue.close()
    assert re.search(r"samba +v1 +through tokenizer v1 +- +-", done.stdout)
    assert re.search(r"tokenizer +v1 +directly +images 2 +1-2", done.stdout)


def test_a_commit_is_contained_in_what_was_made_from_it_and_after_it(remint, project):
    second = git(project, "rev-parse", "main")
    found = json.loads(remint("--commit", second, "--json").stdout)
    assert {(h["model"], h["version"]) for h in found["holders"]} >= {("maskgit", 2), ("depth-small", 2)}
    assert ("tokenizer", 1) not in {(h["model"], h["version"]) for h in found["holders"]}
    first = json.loads(remint("--commit", "main~1", "--json").stdout)
    assert ("tokenizer", 1) in {(h["model"], h["version"]) for h in first["holders"]}


def test_a_commit_after_every_run_is_in_no_model(remint, project):
    git(project, "commit", "-q", "--allow-empty", "-m", "later")
    done = remint("--commit", "HEAD")
    git(project, "reset", "-q", "--hard", "HEAD~1")
    assert done.exit_code == 1
    assert "No model version contains it." in done.stdout


def test_a_moved_and_a_deleted_tag_are_named(remint, project):
    commit = git(project, "rev-parse", "run/b^{commit}")
    git(project, "tag", "-f", "-a", "-m", "moved", "run/b", "main")
    moved = remint("maskgit@v2")
    git(project, "tag", "-d", "run/b")
    deleted = remint("maskgit@v2", "--json")
    git(project, "tag", "-a", "-m", "b", "run/b", commit)
    assert moved.exit_code == deleted.exit_code == 1
    assert f"tag run/b was moved: it names {git(project, 'rev-parse', 'main')[:12]}" in moved.stderr
    assert f"tag run/b was deleted, so nothing keeps commit {commit[:12]}" in deleted.stderr
    assert json.loads(deleted.stdout)["problems"]


def test_a_clone_without_the_runs_commit_still_shows_what_the_catalogue_has(project, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    git(project, "clone", "-q", "--no-tags", "--single-branch", f"file://{project}", str(clone))
    monkeypatch.chdir(clone)
    monkeypatch.setenv("REMINT_CATALOGUE", f"sqlite:///{project}/.remint/catalogue.db")
    done = CliRunner().invoke(main, ["lineage", "maskgit@v2"], catch_exceptions=False)
    assert done.exit_code == 1
    assert "are not in this repository; git fetch --tags" in done.stderr
    assert weights("maskgit v2") in done.stdout
    up = CliRunner().invoke(main, ["lineage", "--commit", "HEAD"], catch_exceptions=False)
    assert up.exit_code == 0  # the user's own commit is there, and the run is known by it
    assert "maskgit" in up.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tokeniser@production"], "no model 'tokeniser' in the catalogue; did you mean 'tokenizer'?"),
        (["tokenizer@prodution"], "tokenizer has no alias 'prodution'; did you mean 'production'?"),
        (["tokenizer@v7"], "tokenizer has no version 7 in the catalogue; the newest is v1"),
        (["tokenizer@previous"], "tokenizer has no previous version"),
        (["../tokenizer"], "'../tokenizer' is not MODEL, MODEL@ALIAS or MODEL@VERSION"),
        ([], "give either a model"),
        (["tokenizer", "--data", "5555"], "give either a model"),
        (["--data", "a"], "no data version 'a' (at least 4 digits of its digest)"),
        (["--data", "ffff"], "no data version 'ffff'"),
        (["--photo", "weel.jpg"], "did you mean 'wheel.jpg'?"),
        (["--commit", "mian"], "'mian' is no commit of"),
        (["--commit", "--all"], "'--all' is no commit of"),
        (["--photo", "wheel.jpg", "--svg", "x.svg"], "--svg draws a model's lineage"),
        (["tokenizer", "--html", "no/such/folder/x.html"], "cannot be written: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_next_step(remint, words, says):
    done = remint(*words)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_short_digest_that_fits_two_data_versions_is_refused(project, remint):
    catalogue = database.open(settings.load(project))
    with catalogue.begin() as session:
        data(session, "photos", "a1a1b" + "0" * 27, 1, 1)
    catalogue.close()
    done = remint("--data", "a1a1")
    assert done.exit_code == 2
    assert "'a1a1' is ambiguous: photos a1a1a1a1a1a1a1a1, photos a1a1b00000000000" in done.stderr


def test_page_and_picture_are_written_and_need_nothing_else(remint, tmp_path):
    done = remint("depth-small@production", "--html", str(tmp_path / "l.html"), "--svg", str(tmp_path / "l.svg"))
    assert done.exit_code == 0, done.stderr
    page, picture = (tmp_path / "l.html").read_text(), (tmp_path / "l.svg").read_text()
    assert weights("depth-small v1") in page
    assert weights("depth-teacher v1") in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert picture.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "photos" in picture


def test_both_databases_give_the_same_answers(project, database_address):
    catalogue = database.open(settings.load(project).model_copy(update={"catalogue": database_address}))
    commits = {
        n: tuple(git(project, "rev-parse", f"run/{n}^{{commit}}~1", f"run/{n}^{{commit}}").split()) for n in "ab"
    }
    with catalogue.begin() as session:
        fill(session, commits)
        add(session, "images", "samba", 1, "b", {}, {"tokenizer": "tokenizer v1"})
    with catalogue.read() as session:
        traces = {
            "photo": up.of_photo(session, "wheel.jpg", project),
            "digest": up.of_photo(session, BEACH[:5], project),
            "data": up.of_data(session, "5555"),
            "commit": up.of_commit(session, project, "run/a"),
            "later": up.of_commit(session, project, commits["b"][0]),
        }
        found = down.lineage_of(session, project, reference.find(session, "maskgit@production"))
    catalogue.close()
    held = {name: [f"{one.model} v{one.version}" for one in trace.holders] for name, trace in traces.items()}
    assert held["photo"] == ["depth-small v1", "depth-small v2"]
    assert held["digest"] == ["depth-small v2"]
    assert held["data"][0] == "depth-small v1"
    assert held["data"][-1] == "samba v1"
    assert set(held["commit"]) == {
        "tokenizer v1", "maskgit v1", "maskgit v2", "depth-teacher v1", "depth-small v1", "depth-small v2", "samba v1",
    }  # fmt: skip
    assert set(held["later"]) == {"maskgit v2", "depth-small v2", "samba v1"}
    assert [parent.name for parent in found.parents] == ["tokenizer v1"]


def test_a_runs_report_draws_what_the_catalogue_knows_of_its_models(project):
    known = {model.name: model for model in families.models_of(project)}
    registered = [
        Registered(known["maskgit"], 2, weights("maskgit v2"), {}, {}, "m"),
        Registered(known["tokenizer"], 99, "f" * 64, {}, {}, "m"),
    ]
    drawn = report.draw_lineage(registered, settings.load(project))
    assert "maskgit v2" in drawn
    assert "tokenizer v1" in drawn
    assert "tokenizer v99" not in drawn
