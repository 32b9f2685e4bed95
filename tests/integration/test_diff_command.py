"""`remint diff` on a family with three releases: the second better than the first, the third a rollback."""

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from flows import settings
from flows.catalogue import database
from flows.catalogue.schema import DataVersion
from flows.cli import main
from flows.release import bundle, pointers
from flows.release.bundle import Bundle, Evaluation, File, Lineage, Manifest
from flows.release.pointers import Member, Pointer
from flows.storage import bucket

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
SCENES = {1: "1" * 32 + ".dir", 2: "2" * 32 + ".dir"}
TOKENIZER = {1: {"psnr": 24.0, "ssim": 0.70, "psnr_glass": 22.0}, 2: {"psnr": 24.5, "ssim": 0.701, "psnr_glass": 22.1}}
MASKGIT = {1: {"gfwd": 0.21}, 2: {"gfwd": 0.19}}


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True).stdout.strip()


def cached(root: Path, pictures: Mapping[str, bytes]) -> str:
    """A folder of pictures in DVC's cache, as `dvc commit` leaves it: files by MD5, and a list of them."""

    def keep(content: bytes, suffix: str = "") -> str:
        name = hashlib.md5(content).hexdigest()
        path = root / ".dvc/cache/files/md5" / name[:2] / f"{name[2:]}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return name + suffix

    listed = [{"md5": keep(content), "relpath": name} for name, content in sorted(pictures.items())]
    return keep(json.dumps(listed).encode(), ".dir")


def picture(colour: str, folder: Path) -> bytes:
    Image.new("RGB", (120, 60), colour).save(folder / "picture.png")
    return (folder / "picture.png").read_bytes()


def recorded(root: Path, number: int, scratch: Path) -> str:
    """A run's commit: parameters, dvc.lock with this run's figures, its tag; the branch stays before it."""
    git(root, "checkout", "-q", "--detach")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["generator"]["maskgit"]["steps"] = 1400 * number
    params["depth"]["labels"]["batch"] = 32 * number
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    shown = {
        "reconstructions.png": picture("red" if number == 1 else "navy", scratch),
        "codebook.png": picture("tan", scratch),
    }
    figures = next(o for o in lock["stages"]["evaluate@tokenizer"]["outs"] if o["path"].endswith("figures"))
    figures["md5"] = cached(root, shown)
    (root / "dvc.lock").write_text(yaml.safe_dump(lock))
    git(root, "commit", "-q", "-a", "-m", f"Record {number}")
    commit = git(root, "rev-parse", "HEAD")
    git(root, "tag", "-a", "-m", "run", f"run/{number}")
    git(root, "checkout", "-q", "main")
    return commit


def per_sample(path: Path, number: int) -> None:
    """PSNR grows by about 0.5 on every picture, SSIM moves by noise alone."""
    noise, ssim = np.random.default_rng(1), np.random.default_rng(number)
    rows = [
        {
            "key": f"scene-{i}",
            "class": ("glass", "room")[i % 2],
            "psnr": float(24 + 3 * noise.normal() + (0.5 + 0.1 * noise.normal()) * (number - 1)),
            "ssim": float(0.7 + 0.05 * ssim.normal()),
        }
        for i in range(40)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def published(store: Any, scratch: Path, name: str, number: int, commit: str, **about: Any) -> Member:
    """A model of one release in the bucket, with what its evaluation left."""
    folder = scratch / f"{name}-{number}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(f"{name} {number}".encode())
    (folder / "config.json").write_text("{}")
    if name == "tokenizer":
        per_sample(folder / "per_sample.parquet", number)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    manifest = Manifest(
        model=name,
        version=number,
        weights=digests["model.safetensors"],
        tag=f"{name}@v{number}.0.0",
        files=tuple(File(n, (folder / n).stat().st_size, digest) for n, digest in digests.items()),
        lineage=Lineage(f"r{number}", commit, f"run/{number}", "l" * 64, "p" * 64, {"scenes": SCENES[number]}, {}),
        evaluation=Evaluation(about["context"], about["metrics"]),
    )
    digest = bundle.publish(store, Bundle(manifest, {n: folder / n for n in digests}))
    return Member(name, number, manifest.weights, manifest.tag, digest)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, scratch = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("bundles")
    git(root, "init", "-q", "-b", "main")
    for name in ("dvc.yaml", "params.yaml", "dvc.lock", ".dvc/config"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text((ROOT / name).read_text())
    (root / "models").mkdir()
    (root / "models/loss.py").write_text("a = 1\n")
    (root / ".gitignore").write_text("/.remint\n/.dvc/*\n!/.dvc/config\n/artifacts\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "start")
    first = recorded(root, 1, scratch)
    (root / "models/loss.py").write_text("a = 2\nb = 3\n")
    (root / "notes.md").write_text("not code\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Weigh the edges")
    second = recorded(root, 2, scratch)
    release_three_times(root, scratch, {1: first, 2: second})
    catalogue = database.open(settings.load(root))
    with catalogue.begin() as session:
        session.add(
            DataVersion(
                stage="scenes", digest=SCENES[1], rows=2240, bytes=21_000_000, verdict="passed",
                created=datetime.now(UTC),
            )
        )  # fmt: skip
    catalogue.close()
    return root


def release_three_times(root: Path, scratch: Path, commits: Mapping[int, str]) -> None:
    store = bucket.at(settings.load(root).production)
    previous = ""
    for number, commit in commits.items():
        members = (
            published(store, scratch, "maskgit", number, commit, context=f"{number}" * 64, metrics=MASKGIT[number]),
            published(store, scratch, "tokenizer", number, commit, context="c" * 64, metrics=TOKENIZER[number]),
        )
        pointer = Pointer(
            "images", number, members, f"r{number}", commit, "Ada", f"release {number}", "2026-11-21T01:24:00+00:00",
            previous,
        )  # fmt: skip
        pointers.append(store, pointer)
        previous = pointers.digest(pointer)
    first = pointers.read(store, "images", 1)
    pointers.append(store, replace(first, number=3, previous=previous, restores=1, why="too soft"))


@pytest.fixture
def remint(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(project)
    return lambda *words: CliRunner().invoke(main, ["diff", *words], catch_exceptions=False)


def test_metrics_say_which_is_better_and_by_more_than_noise(remint):
    done = remint("images", "1", "2")
    assert done.exit_code == 0, done.stderr
    text = done.stdout
    assert "tokenizer v1 -> v2" in text
    assert re.search(r"psnr +24 +24\.50 +\+0\.500 +\[\+0\.4\d+, \+0\.5\d+\] +better", text)
    assert re.search(r"ssim +0\.700 +0\.701 +\+0\.0010 +\[−0\.0\d+, \+0\.0\d+\] +within noise", text)


def test_numbers_of_different_evaluations_are_shown_and_never_judged(remint):
    found = json.loads(remint("images", "1", "2", "--json").stdout)
    (maskgit,) = (member for member in found["members"] if member["model"] == "maskgit")
    assert maskgit["note"] == (
        "evaluated on other data, or by other code: not comparable; "
        "what the gates measured of both on the same data: remint gates maskgit 2"
    )
    assert [(n["metric"], n["before"], n["after"], n["says"]) for n in maskgit["numbers"]] == [("gfwd", 0.21, 0.19, "")]
    assert re.search(r"gfwd +0\.210 +0\.190 +lower is better", remint("images", "1", "2").stdout)  # and no change


def test_parameters_tell_which_models_they_reach(remint):
    text = remint("images", "1", "2").stdout
    assert re.search(r"generator\.maskgit\.steps +1400 +2800 +maskgit\n", text)
    assert re.search(r"depth\.labels\.batch +32 +64 +no model here\n", text)


def test_data_differs_by_digest_and_shows_what_the_catalogue_knows(remint):
    assert (
        "scenes: 111111111111 (2,240 rows, 21.0 MB, validation passed) -> 222222222222 (not in the catalogue)"
        in remint("images", "1", "2").stdout
    )


def test_code_is_what_can_change_a_result(remint):
    found = json.loads(remint("images", "1", "2", "--json").stdout)["code"]
    assert [commit["subject"] for commit in found["gained"]] == ["Weigh the edges"]
    assert found["files"] == [{"path": "models/loss.py", "added": 2, "removed": 1}]
    back = json.loads(remint("images", "2", "3", "--json").stdout)["code"]
    assert [commit["subject"] for commit in back["lost"]] == ["Weigh the edges"]
    assert back["gained"] == []


def test_a_rollback_equals_what_it_restores(remint):
    text = remint("images", "1", "3").stdout
    assert "images #3  r1" in text
    assert "restores #1: too soft" in text
    assert "tokenizer v1, the same in both" in text
    assert "No parameter differs." in text
    assert "scenes: the same" in text
    assert "No code in data/, models/ or dvc.yaml differs." in text


def test_without_numbers_it_compares_production_with_the_release_before(remint):
    assert remint("images").stdout.startswith("images #2 ")
    assert "\nimages #3 " in remint("images").stdout
    assert remint("images", "1").stdout.splitlines()[1].startswith("images #3 ")


def test_the_page_shows_the_pictures_of_both_and_needs_nothing_else(remint, tmp_path):
    done = remint("images", "1", "2", "--html", str(tmp_path / "d.html"))
    assert done.exit_code == 0, done.stderr
    page = (tmp_path / "d.html").read_text()
    pictures = re.findall(r'src="(data:image/png;base64,[^"]+)"', page)
    assert len(pictures) == 3  # reconstructions twice; the codebook did not change, so once
    assert len(set(pictures)) == 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "no pictures of maskgit" in done.stderr  # its figures are in no cache here
    assert "cache nor its remote has them" in page


def test_a_clone_without_the_runs_still_compares_what_the_bucket_holds(project, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    git(project, "clone", "-q", "--no-tags", "--single-branch", f"file://{project}", str(clone))
    monkeypatch.chdir(clone)
    monkeypatch.setenv("REMINT_PRODUCTION", str(project / ".remint/production"))
    done = CliRunner().invoke(main, ["diff", "images", "1", "2", "--html", "d.html"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "no pictures of tokenizer" in done.stderr
    text = CliRunner().invoke(main, ["diff", "images", "1", "2"], catch_exceptions=False).stdout
    assert "better" in text
    assert "git fetch --tags" in text
    assert "Parameters are not compared." in text
    assert "Code is not compared." in text


@pytest.mark.parametrize("name", ["manifest.json", "per_sample.parquet"])
def test_a_bundle_that_was_changed_is_named_and_not_believed(remint, project, name):
    store = bucket.at(settings.load(project).production)
    member = next(one for one in pointers.read(store, "images", 2).members if one.model == "tokenizer")
    path = project / ".remint/production" / bundle.prefix("tokenizer", member.bundle) / name
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-1] + b"?")
    done = remint("images", "1", "2")
    path.write_bytes(content)
    assert done.exit_code == 2
    assert name in done.stderr
    assert hashlib.sha256(content).hexdigest() in done.stderr
    assert hashlib.sha256(content[:-1] + b"?").hexdigest() in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["image", "1", "2"], "no family 'image'; did you mean 'images'?"),
        (["images", "1", "7"], "has no release 7 of images; the newest is images@3"),
        (["images", "0", "1"], "has no release 0 of images"),
        (["depth"], "depth was never released: remint promote depth"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_next_step(remint, words, says):
    done = remint(*words)
    assert done.exit_code == 2
    assert says in done.stderr.splitlines()[-1]
