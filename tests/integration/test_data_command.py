"""`remint data`: a set is listed and written into params.yaml, planned as a stage, made, and shown."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from data.core.params import UserError
from data.pictures import check
from flows import cli
from flows.pipeline import parameters
from flows.pipeline.store import Store
from tests import given

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
PARAMS = """\
seed: 1
pictures: artifacts/scenes  # what is learnt from

images:  # of your own
  sets: {}

scenes: {count: 20, size: 32, samples_per_pixel: 4, held_out_share: 0.2, per_shard: 20}   # a space too many, and a null
last: null
"""


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", root, "-c", "user.name=a", "-c", "user.email=a@b.c", *words], check=True)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose graph has the stage of sets, and one that reads `pictures`."""
    from dvc.repo import Repo

    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    Repo.init(str(folder)).close()
    images = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["images"]
    learn = {"cmd": "true --scenes ${pictures}", "deps": ["${pictures}"], "outs": ["model"]}
    scenes = {"cmd": "true", "outs": ["artifacts/scenes"]}
    stages = {"scenes": scenes, "images": images, "learn": learn}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "requirements.lock").write_text("")
    (folder / ".gitignore").write_text("/artifacts/\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    for package in ("data", "models"):  # a run's parameters are checked by the code of its commit
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(folder)
    return folder


def remint(*words: str) -> Result:
    return CliRunner().invoke(cli.main, ["data", *words])


def stage(root: Path, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "data.pictures.make", "--name", "birds", "--out", "artifacts/images/birds"]
    environment = os.environ | {"REMINT_WORKERS": "1", "REMINT_CHECKPOINTS": str(root / "kept")} | variables
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_a_set_is_added_planned_made_and_shown(root: Path, tmp_path: Path) -> None:
    source = given.tree(tmp_path / "own", given.pictures(24))
    assert remint("list").output.startswith("there are no sets")
    added = remint("add", "birds", str(source), "--size", "32", "--licence", "CC-BY-4.0")
    assert added.exit_code == 0, added.output
    text = (root / "params.yaml").read_text()
    before, behind = PARAMS.split("  sets: {}\n")
    assert text.startswith(before)
    assert text.endswith(behind)
    assert "no class" not in remint("show", "birds").output
    assert "not made here yet" in remint("show", "birds").output

    with_store = Store(root)
    assert [one.name for one in with_store.stages if one.name.startswith("images")] == ["images@birds"]
    with_store.close()
    parameters.apply(root, {"pictures": "artifacts/images/birds"})
    learn = Store(root)
    assert next(one for one in learn.stages if one.name == "learn").upstream == ("images@birds",)
    learn.close()

    done = stage(root)
    assert done.returncode == 0, done.stderr
    shown = json.loads(remint("show", "birds", "--json", "--png", "sheet.png").output)
    assert shown["made"]["licences"] == {"CC-BY-4.0": 24}
    assert Image.open("sheet.png").size == Image.open(shown["sheet"]).size
    assert "class bird: 8" in remint("show", "birds").output
    assert json.loads(remint("list", "--json").output)[0]["made"]["count"] == 24


def test_parts_and_a_whole_give_the_same_bytes_and_nothing_is_made_twice(root: Path, tmp_path: Path) -> None:
    remint("add", "birds", str(given.tree(tmp_path / "own", given.pictures(24))), "--size", "32")
    parameters.apply(root, {"images.sets.birds.per_shard": 8})
    whole = stage(root)
    assert whole.returncode == 0, whole.stderr
    out = root / "artifacts/images/birds"
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    shutil.rmtree(out)
    part = stage(root, REMINT_PART="2/2")
    assert part.returncode == 0, part.stderr
    assert not (out / "manifest.parquet").exists()
    again = stage(root)
    assert "going on with 1 of 3 shards done" in again.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_a_source_that_changed_or_vanished_is_refused_until_it_is_listed_again(root: Path, tmp_path: Path) -> None:
    source = given.tree(tmp_path / "own", given.pictures(12))
    remint("add", "birds", str(source), "--size", "32")
    (source / "cat/new.png").write_bytes(given.picture(99))
    refused = stage(root)
    assert refused.returncode == 2
    assert "1 new (first 'cat/new.png'); put it back, or run remint data add birds again" in refused.stderr
    assert remint("add", "birds", str(source)).exit_code == 0
    assert yaml.safe_load((root / "params.yaml").read_text())["images"]["sets"]["birds"]["size"] == 32
    same_size = (source / "cat/new.png").read_bytes()
    (source / "cat/new.png").write_bytes(same_size[:-1] + b"\0")
    refused = stage(root)
    assert refused.returncode == 2
    assert "is not as it was listed" in refused.stderr
    shutil.rmtree(source)
    refused = stage(root)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "is not on this machine" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Birds", "own"), "cannot be the name of a set"),
        (("birds; rm", "own"), "cannot be the name of a set"),
        (("birds", "gone"), "does not exist"),
        (("birds", "own", "--size", "40"), "size must be a multiple of 16"),
        (("birds", "own", "--size", "0"), "images.sets.birds.size must be at least 16"),
        (("birds", "checkout/mine"), "neither git nor DVC tracks it"),
        (("birds", "none"), "holds no files"),
    ],
)
def test_what_is_no_set_changes_nothing(root: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    given.tree(tmp_path / "own", given.pictures(3))
    given.tree(root / "mine", given.pictures(3))
    (tmp_path / "none").mkdir()
    name, source, *options = words
    refused = remint("add", name, str(tmp_path / source), *options)
    assert refused.exit_code == 2
    assert said in refused.output
    assert (root / "params.yaml").read_text() == PARAMS
    assert not (root / "data/sets").exists()


def test_a_set_that_dvc_tracks_is_named_from_the_checkout(root: Path) -> None:
    given.tree(root / "mine", given.pictures(3))
    (root / "mine.dvc").write_text("outs: []\n")
    assert remint("add", "birds", "mine", "--size", "32").exit_code == 0
    assert yaml.safe_load((root / "params.yaml").read_text())["images"]["sets"]["birds"]["source"] == "mine"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("artifacts/images/bird", "did you mean 'artifacts/images/birds'?"),
        ("birds", "did you mean 'artifacts/images/birds'?"),
        ("artifacts/scene", "did you mean 'artifacts/scenes'?"),
        ("artifacts/scenes; true", "pictures must name a folder of pictures"),
    ],
)
def test_pictures_that_name_nothing_are_refused_before_a_run(root: Path, tmp_path: Path, value: str, said: str) -> None:
    remint("add", "birds", str(given.tree(tmp_path / "own", given.pictures(3))), "--size", "32")
    parameters.apply(root, {"pictures": value})
    with pytest.raises(UserError, match="params.yaml: pictures must name") as error:
        parameters.check(root)
    assert said in str(error.value)


def test_a_set_without_its_list_is_refused_before_a_run(root: Path, tmp_path: Path) -> None:
    remint("add", "birds", str(given.tree(tmp_path / "own", given.pictures(3))), "--size", "32")
    parameters.check(root)
    (root / "data/sets/birds.listing").unlink()
    with pytest.raises(UserError, match="birds.listing does not exist; write it with remint data add birds"):
        check.check(root)


def test_a_bucket_is_a_source(root: Path, tmp_path: Path, s3_address: str) -> None:
    import boto3

    bucket = s3_address.removeprefix("s3://").partition("/")[0]
    client = boto3.client("s3")
    pictures = given.pictures(8)
    for name, file, data in pictures:
        client.put_object(Bucket=bucket, Key=f"set/{name}/{file}", Body=data)
    added = remint("add", "birds", f"s3://{bucket}/set", "--size", "32")
    assert added.exit_code == 0, added.output
    done = stage(root)
    assert done.returncode == 0, done.stderr
    assert json.loads(remint("list", "--json").output)[0]["made"]["count"] == 8
    client.put_object(Bucket=bucket, Key=f"set/{pictures[0][0]}/{pictures[0][1]}", Body=given.picture(70))
    assert "remint data add birds again" in stage(root).stderr
