"""Which commit a reference means: by git's tags alone, and held against the release log and the catalogue."""

import hashlib
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data.core.params import UserError
from flows import settings
from flows.catalogue import database, schema
from flows.release import bundle, pointers, tags
from flows.release.pointers import Member, Pointer
from flows.reproduce import target
from flows.storage import bucket

DVC_YAML = """\
stages: {}
artifacts:
  tokenizer: {path: artifacts/tokenizer/model, type: model}
  depth-small: {path: artifacts/depth-student/small/model, type: model}
"""


class Clone:
    """A repository with a few recorded runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commits: list[str] = []

    @property
    def settings(self):
        return settings.load(self.root)

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", "-C", str(self.root), *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def tag(self, name: str, commit: str, words: str = "by hand") -> None:
        self.git("tag", "--annotate", "--force", "--message", words, name, commit)

    def record(self, number: int) -> str:
        """A run's commit with its tag and the tag of a tokenizer's version."""
        (self.root / "dvc.lock").write_text(f"stages: {{run: {number}}}\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"Run {number}")
        self.tag(f"run/{number}", "HEAD")
        config = "" if number == 1 else "c" * 64  # the first as an earlier Remint wrote it
        words = tags.message("tokenizer", number, f"run/{number}", weights(number), config)
        self.tag(f"tokenizer@v{number}.0.0", "HEAD", words)
        return self.git("rev-parse", "HEAD")

    def assign(self, number: int, version: int) -> None:
        words = f"tokenizer@v{version}.0.0 to production: images #{number}"
        self.tag(f"tokenizer#production#{number}", f"tokenizer@v{version}.0.0^{{commit}}", words)

    def resolve(self, reference: str) -> target.Target:
        return target.resolve(self.settings, reference)


def weights(number: int) -> str:
    return hashlib.sha256(b"weights %d" % number).hexdigest()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Three versions of the tokenizer; the second is in production, the first was."""
    made = Clone(tmp_path_factory.mktemp("project"))
    made.git("init", "--quiet")
    (made.root / "dvc.yaml").write_text(DVC_YAML)
    (made.root / "params.yaml").write_text("seed: 1\n")
    (made.root / ".gitignore").write_text(".remint/\n")
    made.commits = [made.record(1), made.record(2), made.record(3)]
    made.assign(1, 1)
    made.assign(2, 2)
    return made


@pytest.fixture
def clone(template, tmp_path, monkeypatch):
    """A copy of it that a test may change."""
    for name in ("HOME", "PRODUCTION", "CATALOGUE"):
        monkeypatch.delenv(f"REMINT_{name}", raising=False)
    made = Clone(shutil.copytree(template.root, tmp_path / "project"))
    made.commits = template.commits
    return made


def release(clone: Clone, commit: str, version: int) -> None:
    """Put a version of the tokenizer into production in the clone's bucket."""
    place, files, paths = bucket.at(clone.settings.production), [], {}
    for name, content in (("config.json", b"{}"), ("model.safetensors", b"weights %d" % version)):
        paths[name] = clone.root / ".remint" / name
        paths[name].parent.mkdir(exist_ok=True)
        paths[name].write_bytes(content)
        files.append(bundle.File(name, len(content), hashlib.sha256(content).hexdigest()))
    made = bundle.Lineage(f"{version}", commit, f"run/{version}", "0" * 64, "0" * 64, {}, {})
    tag = f"tokenizer@v{version}.0.0"
    about = bundle.Manifest("tokenizer", version, weights(version), tag, tuple(files), made, bundle.Evaluation("", {}))
    digest = bundle.publish(place, bundle.Bundle(about, paths))
    member = Member("tokenizer", version, weights(version), tag, digest)
    pointers.append(place, Pointer("images", 1, (member,), f"{version}", commit, "somebody", "", "", ""))


def catalogue(clone: Clone, commit: str, version: int) -> None:
    """Let the clone's catalogue remember a version."""
    now = datetime.now(UTC)
    run = {"id": f"{version}", "seq": version, "tag": f"run/{version}", "commit": commit, "base_commit": commit}
    run |= {"trigger": "", "parameters": "", "environment": "", "machine": "", "state": "done"}
    about = {"family": "images", "name": "tokenizer", "number": version, "weights": weights(version), "mlflow_run": ""}
    with database.open(clone.settings).begin() as session:
        session.add(schema.Run(**run, started=now, ended=now))
        session.flush()
        tag = f"tokenizer@v{version}.0.0"
        session.add(schema.ModelVersion(**about, run_id=f"{version}", tag=tag, metrics={}, created=now))


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("tokenizer", 2),
        ("tokenizer@production", 2),
        ("tokenizer@previous", 1),
        ("tokenizer@v3", 3),
        ("tokenizer@3", 3),
        ("tokenizer@v1.0.0", 1),
    ],
)
def test_git_alone_says_which_commit_a_reference_means(clone, reference, version):
    found = clone.resolve(reference)
    assert (found.tag, found.commit) == (f"tokenizer@v{version}.0.0", clone.commits[version - 1])
    assert (found.model.stage, found.weights, found.by) == ("tokenizer", weights(version), "git's tags")
    assert not (clone.root / ".remint").exists()


def test_the_highest_number_assigns_and_an_unassignment_takes_away(clone):
    clone.assign(10, 3)
    assert clone.resolve("tokenizer@production").commit == clone.commits[2]
    clone.tag("tokenizer#production!#11", "HEAD")
    with pytest.raises(UserError, match="tokenizer has no production version"):
        clone.resolve("tokenizer@production")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("tokeniser@production", "no model 'tokeniser'; did you mean 'tokenizer'"),
        ("tokenizer@produktion", "no alias 'produktion'; did you mean 'production'"),
        ("tokenizer@v9", "no version v9 here; the newest is tokenizer@v3.0.0"),
        ("depth-small", "depth-small has no production version"),
        ("tokenizer@", "is not MODEL, MODEL@ALIAS or MODEL@VERSION"),
        ("../tokenizer@v1", "is not MODEL, MODEL@ALIAS or MODEL@VERSION"),
    ],
)
def test_an_unknown_name_is_told_with_what_there_is(clone, reference, words):
    with pytest.raises(UserError, match=words):
        clone.resolve(reference)


def test_a_version_tag_that_was_moved_does_not_stand_on_its_run(clone):
    clone.tag("tokenizer@v3.0.0", clone.commits[0], clone.git("tag", "-l", "tokenizer@v3.0.0", "--format=%(contents)"))
    with pytest.raises(UserError, match="one of the two tags was moved") as error:
        clone.resolve("tokenizer@v3")
    assert clone.commits[0][:12] in str(error.value)
    assert clone.commits[2][:12] in str(error.value)


def test_an_assignment_and_its_version_must_stand_on_one_commit(clone):
    words = clone.git("tag", "-l", "tokenizer#production#2", "--format=%(contents)")
    clone.tag("tokenizer#production#2", clone.commits[2], words)
    with pytest.raises(UserError, match="one of the two tags was moved") as error:
        clone.resolve("tokenizer@production")
    assert clone.commits[1][:12] in str(error.value)
    assert clone.commits[2][:12] in str(error.value)


def test_a_deleted_version_tag_is_to_be_fetched(clone):
    clone.git("remote", "add", "origin", "elsewhere")
    clone.git("tag", "--delete", "tokenizer@v2.0.0")
    with pytest.raises(UserError, match=r"was made for tokenizer@v2.0.0, which is not here; git fetch --tags"):
        clone.resolve("tokenizer@production")


def test_a_clone_without_a_remote_is_told_that_it_has_none(clone):
    clone.git("tag", "--delete", "tokenizer@v2.0.0")
    with pytest.raises(UserError, match=r"no remote to fetch from: git remote add"):
        clone.resolve("tokenizer@v2")


def test_a_shallow_clone_is_told_to_deepen(clone, tmp_path):
    shallow = Clone(tmp_path / "shallow")
    source = f"file://{clone.root}"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", "--no-tags", source, str(shallow.root)], check=True)
    with pytest.raises(UserError, match=r"git fetch --unshallow --tags"):
        shallow.resolve("tokenizer@v1")


def test_the_release_log_is_the_truth_about_production(clone):
    release(clone, clone.commits[1], 2)
    found = clone.resolve("tokenizer@production")
    assert found.commit == clone.commits[1]
    assert found.by.startswith("images #1 in ")
    assert found.bundle


def test_a_tag_that_was_moved_against_the_release_log_names_both_commits(clone):
    release(clone, clone.commits[1], 2)
    clone.tag("run/2", clone.commits[2])  # all of git moved together: only the bucket knows
    clone.tag("tokenizer@v2.0.0", clone.commits[2], "tokenizer v2 of run/2")
    clone.assign(2, 2)
    with pytest.raises(UserError, match=r"tag tokenizer@v2.0.0 was moved") as error:
        clone.resolve("tokenizer@production")
    assert clone.commits[1][:12] in str(error.value)
    assert clone.commits[2][:12] in str(error.value)


def test_an_assignment_that_is_behind_the_release_log_is_an_error(clone):
    release(clone, clone.commits[2], 3)
    with pytest.raises(UserError, match=r"doctor --repair") as error:
        clone.resolve("tokenizer@production")
    assert clone.commits[1][:12] in str(error.value)
    assert clone.commits[2][:12] in str(error.value)


def test_a_tag_that_the_release_log_names_must_be_here(clone):
    release(clone, clone.commits[2], 3)
    clone.git("tag", "--delete", "tokenizer@v3.0.0")
    with pytest.raises(UserError, match=r"images #1 in .* names tokenizer@v3.0.0, a tag that is not here"):
        clone.resolve("tokenizer@production")


def test_a_tag_that_was_made_again_for_other_weights_is_found(clone):
    release(clone, clone.commits[1], 2)
    clone.tag("tokenizer@v2.0.0", clone.commits[1], f"tokenizer v2 of run/2\n\nweights {weights(7)}")
    with pytest.raises(UserError, match="the tag was made again"):
        clone.resolve("tokenizer@production")


def test_the_catalogue_knows_where_a_version_was_made(clone):
    catalogue(clone, clone.commits[2], 3)
    assert clone.resolve("tokenizer@v3").by == "the catalogue"
    clone.tag("run/3", clone.commits[0])
    clone.tag("tokenizer@v3.0.0", clone.commits[0], "tokenizer v3 of run/3")
    with pytest.raises(UserError, match=r"was moved: .* by the catalogue it was made from") as error:
        clone.resolve("tokenizer@v3")
    assert clone.commits[2][:12] in str(error.value)


def test_a_tag_on_a_commit_without_a_recorded_run_is_refused(clone):
    (clone.root / "dvc.lock").unlink()
    clone.git("commit", "--quiet", "--all", "--message", "No results")
    clone.tag("tokenizer@v4.0.0", "HEAD")
    with pytest.raises(UserError, match=r"has no dvc.lock: no run was recorded there"):
        clone.resolve("tokenizer@v4")


def test_a_model_that_its_commit_does_not_have_is_named(clone):
    (clone.root / "dvc.yaml").write_text("stages: {}\n")
    clone.git("commit", "--quiet", "--all", "--message", "No models")
    clone.tag("tokenizer@v4.0.0", "HEAD")
    with pytest.raises(UserError, match=r"whose dvc.yaml has no artifact 'tokenizer'"):
        clone.resolve("tokenizer@v4")


def test_all_of_production_is_found_by_either_source(clone):
    assert [one.tag for one in target.in_production(clone.settings)] == ["tokenizer@v2.0.0"]
    release(clone, clone.commits[1], 2)
    assert [one.tag for one in target.in_production(clone.settings)] == ["tokenizer@v2.0.0"]
