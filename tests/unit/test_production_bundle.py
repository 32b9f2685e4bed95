"""Bundles: what may be in one, that a hostile manifest leads nowhere, and that a changed one is not believed."""

import hashlib
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from data.core.params import UserError
from flows.catalogue.registered import Registered
from flows.pipeline.families import models_of
from flows.pipeline.run import RunInfo
from flows.release import bundle
from flows.storage.folder import FolderBucket


@pytest.fixture
def bucket(tmp_path):
    return FolderBucket(tmp_path / "bucket")


@pytest.fixture
def member(bucket, publish):
    return publish(bucket, "images", {"tokenizer": 1}).members[0]


def plant(bucket: FolderBucket, text: str) -> str:
    """Put a manifest into the bucket as someone who can write there would; its digest is right."""
    name = hashlib.sha256(text.encode()).hexdigest()
    bucket.create(f"bundles/tokenizer/{name}/manifest.json", text.encode())
    return name


def changed(manifest: bundle.Manifest, **changes: object) -> str:
    values = {"format": 1, **asdict(manifest)} | changes
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def test_a_bundle_comes_back_whole_and_is_known_by_its_digest(bucket, member, tmp_path):
    seen: list[int] = []
    got = bundle.fetch(bucket, "tokenizer", member.bundle, tmp_path / "got", watch=seen.append)
    assert bundle.digest(got) == member.bundle
    assert (
        got
        == bundle.read(bucket, "tokenizer", member.bundle)
        == bundle.at(tmp_path / "got", "tokenizer", member.bundle)
    )
    assert {path.name for path in (tmp_path / "got").iterdir()} == {*bundle.FILES, "manifest.json"}
    assert sum(seen) == got.size
    assert got.weights == hashlib.sha256((tmp_path / "got/model.safetensors").read_bytes()).hexdigest()


def test_a_part_of_a_bundle_can_be_fetched(bucket, member, tmp_path):
    bundle.fetch(bucket, "tokenizer", member.bundle, tmp_path / "got", only=["per_sample.parquet"])
    assert {path.name for path in (tmp_path / "got").iterdir()} == {"per_sample.parquet", "manifest.json"}
    assert bundle.at(tmp_path / "got", "tokenizer", member.bundle) is None
    bundle.fetch(bucket, "tokenizer", member.bundle, tmp_path / "none", only=[])
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["manifest.json"]


def test_publishing_again_changes_nothing_and_the_manifest_is_last(bucket, publish, monkeypatch):
    first = publish(bucket, "images", {"tokenizer": 1}).members[0]
    keys = bucket.list("bundles/")
    written: list[str] = []
    original = bucket.create
    monkeypatch.setattr(bucket, "upload", lambda key, path, sha256: written.append(key))
    monkeypatch.setattr(bucket, "create", lambda key, data: (written.append(key), original(key, data)))
    again = publish(bucket, "images", {"tokenizer": 1}).members[0]
    assert again == first
    assert bucket.list("bundles/") == keys
    assert written[-2].endswith("/manifest.json")
    assert len(written) == 7  # five files, the manifest, the pointer


@pytest.mark.parametrize(
    "name", ["../evil.json", "/etc/passwd", "sub/config.json", "release.json", "model.bin", "manifest.json", "", "a\0b"]
)
def test_a_manifest_with_any_other_file_name_is_refused(bucket, member, tmp_path, name):
    manifest = bundle.read(bucket, "tokenizer", member.bundle)
    files = sorted([*asdict(manifest)["files"], {"name": name, "size": 1, "sha256": "0" * 64}], key=lambda f: f["name"])
    planted = plant(bucket, changed(manifest, files=files))
    with pytest.raises(UserError, match="cannot be in a bundle"):
        bundle.fetch(bucket, "tokenizer", planted, tmp_path / "got")
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "../x"}, "no name of a model"),
        ({"model": "maskgit"}, "is of the model maskgit"),
        ({"weights": "0" * 64}, "not the digest of model.safetensors"),
        ({"files": []}, "model.safetensors and config.json among them"),
        ({"evaluation": {"context": "", "metrics": {"psnr": "high"}}}, "psnr is not a number"),
        ({"evaluation": {"context": "", "metrics": {"psnr": float("nan")}}}, "not a bundle's manifest"),
        ({"version": "1"}, "version must be a whole number"),
        ({"surprise": 1}, "surprise is not a parameter"),
        ({"format": 2}, "newer version of Remint"),
        ({"format": "x"}, "not a bundle's manifest"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(bucket, member, changes, words):
    manifest = bundle.read(bucket, "tokenizer", member.bundle)
    with pytest.raises(UserError, match=words):
        bundle.read(bucket, "tokenizer", plant(bucket, changed(manifest, **changes)))


def test_sizes_that_no_file_has_are_refused(bucket, member):
    manifest = bundle.read(bucket, "tokenizer", member.bundle)
    for size in (-1, 10**10):
        files = [f | {"size": size} if f["name"] == "config.json" else f for f in asdict(manifest)["files"]]
        with pytest.raises(UserError, match="config.json"):
            bundle.read(bucket, "tokenizer", plant(bucket, changed(manifest, files=files)))


def test_names_that_are_no_digest_or_no_model_lead_nowhere(bucket):
    for model, name in [("../../etc", "0" * 64), ("tokenizer", "../x"), ("tokenizer", "0" * 63), ("a/b", "0" * 64)]:
        with pytest.raises(UserError, match="names no bundle"):
            bundle.read(bucket, model, name)
    with pytest.raises(UserError, match=f"holds no bundle {'0' * 64} of tokenizer"):
        bundle.read(bucket, "tokenizer", "0" * 64)


def test_a_changed_manifest_or_file_is_named_with_both_digests(bucket, member, tmp_path):
    place = bucket.root / bundle.prefix("tokenizer", member.bundle)
    weights = place / "model.safetensors"
    right = weights.read_bytes()
    weights.write_bytes(right[:-1] + b"x")
    with pytest.raises(UserError, match=f"model.safetensors has the wrong content: expected sha256 {member.weights}"):
        bundle.fetch(bucket, "tokenizer", member.bundle, tmp_path / "got")
    weights.write_bytes(right + b"x")
    with pytest.raises(UserError, match=rf"model.safetensors has {len(right) + 1} bytes, {len(right)} were announced"):
        bundle.fetch(bucket, "tokenizer", member.bundle, tmp_path / "got")
    assert not (tmp_path / "got/model.safetensors").exists()
    assert not (tmp_path / "got/manifest.json").exists()
    (place / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=f"manifest.json has the wrong content: expected sha256 {member.bundle}, found"):
        bundle.read(bucket, "tokenizer", member.bundle)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", b"\x80\x04\x95 a pickle", "is not a safetensors file"),
        ("model.safetensors", (100).to_bytes(8, "little") + b"{}", "is not a safetensors file"),
        ("config.json", b"{'a': 1}", "is not JSON"),
        ("config.json", b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(bucket, member, tmp_path, name, content, words):
    manifest = bundle.read(bucket, "tokenizer", member.bundle)
    old = bucket.root / bundle.prefix("tokenizer", member.bundle)
    digest = hashlib.sha256(content).hexdigest()
    files = tuple(replace(f, size=len(content), sha256=digest) if f.name == name else f for f in manifest.files)
    weights = digest if name == "model.safetensors" else manifest.weights
    evil = replace(manifest, files=files, weights=weights)
    planted = plant(bucket, bundle.text(evil))
    new = bucket.root / bundle.prefix("tokenizer", planted)
    for file in manifest.files:
        (new / file.name).write_bytes(content if file.name == name else (old / file.name).read_bytes())
    with pytest.raises(UserError, match=words):
        bundle.fetch(bucket, "tokenizer", planted, tmp_path / "got")
    assert not (tmp_path / "got/manifest.json").exists()


def test_a_run_is_packed_with_its_lineage_and_the_context_of_its_numbers(tmp_path, bucket):
    workspace = make_workspace(tmp_path / "run")
    model = models_of(workspace)[0]
    run = RunInfo("id", "run/id", "c" * 40, "b" * 40, workspace, False, "p" * 64, datetime.now(UTC), "retrain")
    weights = hashlib.sha256(b"weights").hexdigest()
    lock = hashlib.sha256((workspace / "dvc.lock").read_bytes()).hexdigest()
    tags = {"git_tag": run.tag, "git_commit": run.commit, "dvc_lock": lock, "data.scenes": "1.dir"}
    one = Registered(model, 3, weights, {"proxy": "0" * 64}, {"psnr": 21, "ssim": 0.5}, "mlflow", tags=tags)
    packed = bundle.pack(run, one, "tokenizer@v3.0.0")
    made = packed.manifest
    assert (made.model, made.version, made.tag, made.weights) == ("tokenizer", 3, "tokenizer@v3.0.0", weights)
    assert [file.name for file in made.files] == ["config.json", "metrics.json", "model.safetensors"]
    assert made.lineage.data == {"scenes": "1.dir"}
    assert (made.lineage.dvc_lock, made.lineage.parameters) == (lock, run.parameters)
    assert made.lineage.parents == {"proxy": "0" * 64}
    assert len(made.evaluation.context) == 64
    assert made.evaluation.metrics == {"psnr": 21.0, "ssim": 0.5}
    assert bundle.read(bucket, "tokenizer", bundle.publish(bucket, packed)) == made
    with pytest.raises(UserError, match="tokenizer cannot be published: metrics.psnr is not a number"):
        bundle.pack(run, replace(one, metrics={"psnr": float("nan")}), "tokenizer@v3.0.0")
    (workspace / model.path / "extra.bin").touch()
    with pytest.raises(UserError, match=r"tokenizer cannot be published: its folder .* holds extra.bin, and a bundle"):
        bundle.pack(run, one, "tokenizer@v3.0.0")
    (workspace / model.path / "extra.bin").unlink()
    with pytest.raises(UserError, match="tokenizer v3 has no tag git_commit in MLflow's registry"):
        bundle.pack(run, replace(one, tags={"git_tag": run.tag}), "tokenizer@v3.0.0")
    (workspace / model.path / "config.json").unlink()
    with pytest.raises(UserError, match="tokenizer cannot be published: .*config.json does not exist"):
        bundle.pack(run, one, "tokenizer@v3.0.0")


def make_workspace(root: Path) -> Path:
    model, evaluation = root / "artifacts/tokenizer/model", root / "artifacts/evaluate/tokenizer"
    model.mkdir(parents=True)
    evaluation.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    (evaluation / "metrics.json").write_text('{"psnr": 21}')
    (root / "dvc.yaml").write_text("artifacts: {tokenizer: {path: artifacts/tokenizer/model}}")
    scenes = {"path": "artifacts/scenes", "md5": "1.dir"}
    weights = {"path": "artifacts/tokenizer/model", "md5": "2.dir"}
    stages = {
        "scenes": {"cmd": "a", "outs": [scenes]},
        "tokenizer": {"cmd": "b", "deps": [scenes], "outs": [weights]},
        "evaluate@tokenizer": {"cmd": "c", "deps": [scenes, weights], "outs": []},
    }
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))
    return root
