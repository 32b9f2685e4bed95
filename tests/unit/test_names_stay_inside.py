"""A name from the command line or from a file of a store never leads out of the folder that it is meant for.

Where names become paths, and what holds them:
    recipe               models/recipes/NAME.yaml          flows.pipeline.parameters: only names that are there
    MODEL@ALIAS          MLflow's registry, git's tags     models.registry, flows.reproduce.target: a pattern
    FAMILY, number       releases/FAMILY/N.json            flows.release.pointers: a pattern
    key                  a file of the production folder   flows.storage.bucket: a pattern for each part
    model, digest        bundles/MODEL/DIGEST              flows.release.bundle: patterns
    file of a bundle     DIR/MODEL/FILE                    flows.release.bundle: four known names
    run                  runs/ID, worktrees/ID             flows.release.recorded: only tags that are there
    stage of a bucket    REMINT_CHECKPOINTS/STAGE-KEY      models.core.checkpoint: a pattern
    anything to remove   below the home                    flows.garbage.place: no link, no ".."
"""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from data.core import checkpoint_store
from data.core.params import UserError
from flows.console import one_line_errors
from flows.garbage import place
from flows.pipeline import parameters
from flows.release import bundle, pointers, pull, recorded
from flows.reproduce import target
from flows.settings import Settings
from flows.storage import protocol
from flows.storage.folder import FolderBucket
from models import registry

DIGEST = "0" * 64
NAMES = {
    "parent": "../outside",
    "deep": "a/../../outside",
    "root": "/outside",
    "dots": "..",
    "dot": ".",
    "nothing": "",
    "NUL": "outside\0",
    "line": "outside\n",
    "two lines": "out\nside",
    "long": "x" * 300,
    "unicode": "оutside",  # a Cyrillic o
    "combining": "e\u0301",
    "backslash": "..\\outside",
    "blank": "out side",
    "option": "-x",
    "escape": "\x1b[2J",
}


@pytest.fixture(params=NAMES.values(), ids=NAMES)
def name(request):
    return request.param


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project in a folder, with a neighbour that nobody may see or touch."""
    project = tmp_path / "project"
    (project / "models" / "recipes").mkdir(parents=True)
    (project / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "manifest.json").write_text("{}")
    (tmp_path / "outside.yaml").write_text("seed: 2\n")
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    before = everything(tmp_path)
    yield project
    assert everything(tmp_path) == before


def everything(folder: Path) -> dict:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_recipe(home, name):
    with pytest.raises(UserError, match="there is no recipe"):
        parameters.changes(home, name, [])


@pytest.mark.parametrize("shape", ["{}@production", "{}", "tokenizer@{}"])
def test_a_model_or_an_alias(home, name, shape, monkeypatch):
    monkeypatch.setattr(target.tags, "read", lambda root: {})
    monkeypatch.setattr(target, "_families", lambda root: {})
    with pytest.raises(UserError):
        registry.fetch(shape.format(name))
    with pytest.raises(UserError):
        target.resolve(Settings(root=home), shape.format(name))


def test_a_family(home, name):
    where = FolderBucket(home / "production")
    with pytest.raises(UserError):
        pull.find(where, name, None)
    with pytest.raises(UserError):
        pointers.read(where, name, 1)


def test_a_key_of_the_bucket(home, name):
    where = FolderBucket(home.parent / "outside" / "production")
    for key in (name, f"bundles/{name}", f"{name}/manifest.json"):
        if key == "bundles/":
            continue
        for act in (where.read, where.delete, lambda key: where.create(key, b"x"), protocol.check_key):
            with pytest.raises(UserError):
                act(key)
        with pytest.raises(UserError):
            where.upload(key, home / "params.yaml")
        with pytest.raises(UserError):
            where.download(key, home / "params.yaml", 1, DIGEST)


def test_a_key_that_a_link_leads_out_of_the_bucket(home, tmp_path):
    where = FolderBucket(tmp_path / "linked")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "bundles").symlink_to(tmp_path / "outside")
    for act in (where.read, where.delete, lambda key: where.create(key, b"x")):
        with pytest.raises(UserError, match="leads out of the folder by a link"):
            act("bundles/manifest.json")
    (tmp_path / "linked" / "bundles").unlink()
    (tmp_path / "linked").rmdir()


def test_a_model_of_a_release_and_its_bundle(name):
    member = pointers.Member("tokenizer", 1, DIGEST, "tokenizer@v1.0.0", DIGEST)
    for field in ("model", "weights", "bundle"):
        with pytest.raises(ValueError):
            dataclasses.replace(member, **{field: name})
    for model, digest in ((name, DIGEST), ("tokenizer", name)):
        with pytest.raises(UserError):
            bundle.prefix(model, digest)


def test_a_family_of_a_pointer(name):
    member = pointers.Member("tokenizer", 1, DIGEST, "tokenizer@v1.0.0", DIGEST)
    with pytest.raises(ValueError):
        pointers.Pointer(name, 1, (member,), "r", DIGEST[:40], "me", "", "2026-01-01", "")


def test_a_file_that_a_manifest_names(name):
    for file in (name, f"{name}/model.safetensors", f"model.safetensors/{name}"):
        with pytest.raises(ValueError):
            bundle.File(file, 1, DIGEST)


def test_a_run(home, name, monkeypatch):
    stores = SimpleNamespace(settings=Settings(root=home))
    monkeypatch.setattr(recorded.run_tags, "commits", lambda root: {"20260101T000000Z-1a2b3c4": DIGEST[:40]})
    monkeypatch.setattr(recorded, "_rows", lambda stores: {})
    monkeypatch.setattr(recorded, "_shallow", lambda stores: "")
    for words in (name, f"run/{name}"):
        with pytest.raises(UserError, match="no run"):
            recorded.find(stores, words)


def test_the_checkpoints_of_a_stage(home, name):
    for folder in (name, f"{name}-{'0' * 16}", f"../outside/{name}"):
        if folder == f"{'x' * 300}-{'0' * 16}" or folder == f"оutside-{'0' * 16}" or folder == f"-x-{'0' * 16}":
            continue  # plain names, though of nothing that is there
        with pytest.raises(UserError):
            checkpoint_store.discard(str(home / "checkpoints"), folder)


@pytest.mark.parametrize("kind", ["parent", "deep", "root", "dots", "dot", "nothing"])
def test_what_is_to_be_removed(home, kind):
    with pytest.raises(UserError):
        place.remove(home / NAMES[kind], home)


def test_an_error_that_quotes_a_name_is_one_plain_line(name, capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise UserError(f"there is no '{name}'")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert line.isprintable()


@pytest.mark.parametrize("path", ["../outside", "/outside", "artifacts/../../outside", "artifacts/link"])
def test_the_folder_that_an_mlmodel_file_names(home, path):
    packed = home / "packed"
    (packed / "artifacts" / "model").mkdir(parents=True)
    (packed / "artifacts" / "link").symlink_to(home.parent / "outside")

    def named(path):
        flavor = {"artifacts": {"model": {"path": path}}}
        (packed / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": flavor}}))
        return registry._inside(packed, "tokenizer@v1")

    assert named("artifacts/model") == (packed / "artifacts" / "model").resolve()
    with pytest.raises(UserError, match="which lies outside of it; it is not loaded"):
        named(path)
    (packed / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(UserError, match="says of no model where it lies"):
        registry._inside(packed, "tokenizer@v1")
    shutil.rmtree(packed)
