"""A project that watches a place, and photographs to put there: what the tests of arrivals share."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import yaml
from PIL import Image

from flows.settings import Settings

PHOTOS: dict[str, Any] = {
    "source": "own",
    "size": 32,
    "count": 100,
    "held_out_share": 0.3,
    "min_contrast": 0.02,
    "max_bad_share": 0.5,
    "max_pixels": 1_000_000,
    "per_photo": None,
}


def photograph(number: int, size: tuple[int, int] = (96, 80), dark: float = 1.0) -> bytes:
    """A JPEG that looks a little like something: soft patches of colour, brighter above."""
    rng = np.random.default_rng(number)
    patches = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    slope = np.linspace(1.0, 0.6, size[1])[:, None, None]
    pixels = np.clip(np.asarray(patches) * slope * dark, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def project(root: Path, incoming: str, **changes: Any) -> Settings:
    """A repository whose photographs are two in a folder, and which watches `incoming`."""
    from dvc.repo import Repo

    git(root, "init", "-q")
    Repo.init(str(root)).close()
    (root / "own").mkdir()
    for number in (1000, 1001):
        (root / "own" / f"{number}.jpg").write_bytes(photograph(number))
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text(yaml.safe_dump({"seed": 1, "photos": PHOTOS}, sort_keys=False))
    (root / ".gitignore").write_text("/.remint/\n/artifacts/\n/inbox/\n")
    (root / "data").mkdir()
    (root / "data" / "read.me").write_text("the list of arrivals is put beside this file\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Start")
    return Settings(root=root, incoming=incoming, **changes)


def git(root: Path, *words: str) -> str:
    root.mkdir(parents=True, exist_ok=True)
    return subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True).stdout.strip()


def deliver(place: str, files: Mapping[str, bytes]) -> None:
    """Put files under their names into a folder or an S3 prefix."""
    if "://" not in place:
        for name, data in files.items():
            path = Path(place, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return
    client, bucket, prefix = _s3(place)
    for name, data in files.items():
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data)


def remove(place: str) -> None:
    """Remove everything under an S3 prefix."""
    client, bucket, prefix = _s3(place)
    for row in client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", []):
        client.delete_object(Bucket=bucket, Key=row["Key"])


def _s3(place: str) -> tuple[Any, str, str]:
    import boto3

    parts = urlsplit(place)
    client = boto3.session.Session().client("s3", region_name="us-east-1")
    return client, parts.netloc, parts.path.strip("/")


def release(settings: Settings, photographs: int = 8) -> None:
    """Put a depth student into production that was made from so many photographs: random weights, real files."""
    import torch
    from dvc.repo import Repo

    from data.core import params
    from data.core.digests import sha256
    from data.photos import collect
    from data.photos.params import Photos
    from flows.release import bundle, pointers
    from flows.release.bundle import Bundle, Evaluation, File, Lineage, Manifest
    from flows.storage import bucket
    from models.core import saved
    from models.depth import net

    root = settings.root
    for number in range(photographs):
        (root / "own" / f"{number}.jpg").write_bytes(photograph(2000 + number))
    graph = {
        "stages": {"photos": {"cmd": "true", "deps": ["own"], "outs": ["artifacts/photos"]}},
        "artifacts": {"depth-small": {"path": "artifacts/depth-student/small/model", "type": "model"}},
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    section = params.load(Photos, "photos", root / "params.yaml")
    collect.collect(str(root / "own"), root / "artifacts" / "photos", section)
    with contextlib.chdir(root), Repo(str(root)) as repo:
        repo.commit(force=True)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Record")

    torch.manual_seed(0)
    tiny = {"image_size": 32, "patch_size": 8, "dim": 16, "layers": 2, "heads": 2, "taps": (0, 1, 2), "fusion": 8}
    made = net.build(**tiny, factors=(2, 1, 0.5), neck=(8, 8, 8), head=8)  # type: ignore[arg-type]
    folder = root / ".remint" / "student"
    saved.write(folder, made.state_dict(), net.config_of(made))
    (folder / "metrics.json").write_text("{}")
    (folder / "per_sample.parquet").write_bytes(b"none")
    paths = {path.name: path for path in sorted(folder.iterdir())}
    files = tuple(File(name, path.stat().st_size, sha256(path)) for name, path in paths.items())
    commit, weights = git(root, "rev-parse", "HEAD"), sha256(folder / "model.safetensors")
    lineage = Lineage("run", commit, "run/run", "d" * 64, "e" * 64, {"photos": "f.dir"}, {})
    manifest = Manifest("depth-small", 1, weights, "depth-small@v1.0.0", files, lineage, Evaluation("0" * 64, {}))
    store = bucket.at(settings.production)
    digest = bundle.publish(store, Bundle(manifest, paths))
    member = pointers.Member("depth-small", 1, weights, "depth-small@v1.0.0", digest)
    pointers.append(store, pointers.Pointer("depth", 1, (member,), "run", commit, "ann", "better", "2026", ""))
