"""Which tags below run/ are taken for runs: only what this machine or its catalogue knows, or a clone can verify."""

import shutil

import pytest

from data.core.params import UserError
from flows import repository
from flows.catalogue import known_runs
from flows.doctor import checks
from flows.pipeline import run
from flows.release import of_run, recorded, stores, tags
from flows.settings import Settings
from tests.released import git

pytestmark = pytest.mark.integration
LATER = "29990101T000000Z-"  # would be the newest
COMMENT = {"old": "schema", "new": "# read\nschema"}
ANNOTATED = ["-a", "-m", "mine"]


@pytest.fixture
def clone(places, tmp_path):
    """A clone with the tags and DVC's cache, and without notes and catalogue."""
    git(tmp_path, "clone", "-q", str(places.settings.root), str(tmp_path / "clone"))
    shutil.copytree(places.settings.root / ".dvc/cache", tmp_path / "clone/.dvc/cache")
    return Settings(root=tmp_path / "clone")


def real(places):
    return max(name for name in tags.read(places.settings.root) if name.startswith("run/2026"))


def forge(root, old, new, path="dvc.lock", message="", name=""):
    """A tag like a run's on a commit that says something else: returns its name."""
    base = git(root, "rev-parse", "HEAD")
    identifier = name or f"{LATER}{base[:7]}"
    text = (root / path).read_text()
    assert old in text
    (root / path).write_text(text.replace(old, new, 1))
    message = message or f"{run.RECORDED} {identifier}"
    git(root, "commit", "-q", "-m", message, "--", path)
    git(root, "tag", "-a", "-m", "Run", f"run/{identifier}")
    return f"run/{identifier}"


def output(root):
    """The digest of an output in dvc.lock."""
    text = (root / "dvc.lock").read_text()
    return text[text.index("path: artifacts/tokenizer/model") :].split("md5: ")[1].split()[0]


@pytest.mark.parametrize(
    ("name", "options", "what", "says"),
    [
        ("run/latest", ANNOTATED, "HEAD", "no run's name, which is run/<time>-<commit>"),
        ("run/latest", [], "HEAD", "no run's name"),
        ("run/29990101T000000Z-1a2b3c4/x", ANNOTATED, "HEAD", "no run's name"),
        ("run/29990101T000000Z-1a2b3c4", [], "HEAD", "not annotated, as a run's is"),
        (
            "run/29990101T000000Z-1a2b3c4",
            ANNOTATED,
            "HEAD:params.yaml",
            "the tag of a blob, not of a commit",
        ),
        ("run/29990101T000000Z-1a2b3c4", ANNOTATED, "HEAD", "no run: its commit"),
    ],
)
def test_a_persons_tag_below_run_is_no_run_and_is_named(places, name, options, what, says):
    git(places.settings.root, "tag", *options, name, what)
    assert known_runs.newest(places.settings) == real(places)
    assert recorded.find(places, None).tag == real(places)
    (line,) = map(str, checks.examine(places, repair=True))
    assert line.startswith(f"wrong     git: {name} is {says}")
    assert f"git tag -d '{name}'" in line
    with pytest.raises(UserError, match=r"did you mean|the newest|is known by its tag alone"):
        recorded.find(places, name)


def test_a_forged_run_with_another_lock_is_believed_by_nobody(places, clone):
    """It has all that git can hold: form, annotation, message, parent. What it says of the outputs nobody knows."""
    for root in (places.settings.root, clone.root):
        forged = forge(root, output(root), "0" * 32 + ".dir")
        assert known_runs.newest(Settings(root=root)) == real(places)
        with stores.opened(Settings(root=root)) as there:
            with pytest.raises(UserError, match="known by its tag alone, and nothing here knows that tokenizer gave"):
                of_run.promote_run(there, "images", forged, "me", "")
            assert recorded.find(there, None).tag == real(places)


def test_a_known_run_whose_tag_was_put_on_another_commit_does_not_count(places):
    root, tag = places.settings.root, real(places)
    git(root, "tag", "-d", tag)
    forge(root, output(root), "0" * 32 + ".dir", name=tag.removeprefix("run/"))
    assert known_runs.newest(places.settings) == min(name for name in tags.read(root) if name.startswith("run/"))
    with pytest.raises(UserError, match=f"{tag} was moved to commit"):
        recorded.find(places, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({**COMMENT, "message": "Better results"}, "is not the record of that run"),
        ({"old": "seed", "new": "# \nseed", "path": "params.yaml"}, "changes params.yaml, which is no result"),
        ({"old": "21.0", "new": "99.0", "path": "artifacts/evaluate/tokenizer/metrics.json"}, "changes artifacts/eval"),
        ({"old": "schema", "new": "[[[\nschema"}, "has no dvc.lock as DVC writes it"),
        ({"old": "stages", "new": "stages: {scenes: 7}\nothers"}, "has no dvc.lock as DVC writes it"),
        ({"old": "  maskgit:", "new": "  maskgit@x:"}, "has no maskgit"),
        ({**COMMENT, "name": f"{LATER}0000000"}, "does not follow the one that its name says"),
    ],
)
def test_a_clone_believes_only_a_commit_as_a_run_makes_it(places, clone, change, says):
    git(clone.root, "commit", "-q", "--allow-empty", "-m", "somebody's work")
    forged = forge(clone.root, **change)
    assert known_runs.newest(clone) == real(places)
    with stores.opened(clone) as there, pytest.raises(UserError, match=says):
        recorded.find(there, forged)


def test_a_clone_starts_from_the_newest_run_whose_every_result_the_run_cache_knows(places, clone):
    assert known_runs.newest(clone) == real(places)
    shutil.rmtree(clone.root / ".dvc/cache/runs")
    assert known_runs.newest(clone) is None
    with stores.opened(clone) as there, pytest.raises(UserError, match=r"dvc fetch --run-cache --all-tags"):
        recorded.find(there, real(places))
    assert [str(one) for one in _of_git(clone)] == []  # nothing is wrong with tags that others made


@pytest.mark.parametrize("depth", ["1", "2"])
def test_a_shallow_clone_believes_no_run_and_stops_over_none(places, tmp_path, depth):
    source = f"file://{places.settings.root}"
    git(tmp_path, "clone", "-q", "--depth", depth, source, str(tmp_path / "clone"))
    git(tmp_path / "clone", "fetch", "-q", "--depth", depth, "--tags")
    shallow = Settings(root=tmp_path / "clone")
    assert real(places) in tags.read(shallow.root)
    assert known_runs.newest(shallow) is None
    with stores.opened(shallow) as there, pytest.raises(UserError, match="known by its tag alone"):
        recorded.find(there, None)
    assert _of_git(shallow) == []


def test_a_catalogue_alone_vouches_for_a_run(places):
    shutil.rmtree(places.settings.runs)
    shutil.rmtree(places.settings.root / ".dvc/cache/runs")
    assert known_runs.newest(places.settings) == real(places)
    repository.tag(places.settings.root, "run/29990101T000000Z-1a2b3c4", "mine", "HEAD")
    assert known_runs.newest(places.settings) == real(places)


def _of_git(chosen):
    with stores.opened(chosen) as there:
        return list(checks.strangers(there))
