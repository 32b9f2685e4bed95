"""Gather what the stages left under artifacts/ into plain values; what is missing is simply absent."""

from __future__ import annotations

import base64
import csv
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.core import digests, params
from data.core.params import UserError
from models.report import charts

TRACKED = ("model/model.safetensors", "tokens.safetensors", "manifest.parquet")  # what a digest stands for
PAPER, HALF = 250, 0.5  # a row or column of a grid is a picture's when half of it is darker than paper
WIDEST, TALLEST = 1072, 600  # CSS pixels
LIMIT = 12_000_000  # bytes of one picture; a larger one does not belong into a page


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI with its size in pixels; `name` is the file's name without ending."""

    name: str
    uri: str
    width: int
    height: int

    @property
    def scale(self) -> int:
        """By how many whole pixels a small picture is enlarged: as far as it stays within WIDEST x TALLEST."""
        return max(1, min(WIDEST // self.width, TALLEST // self.height))


@dataclass(frozen=True)
class File:
    """A file that identifies a stage's result: its path under artifacts/, bytes and SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Stage:
    """What one stage left: figures, metrics (nested for several models), curves and digests."""

    name: str
    pictures: tuple[Picture, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    charts: tuple[charts.Chart, ...] = ()
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Scene:
    """One rendered sample of a class with its exact depth, and how many there are to train on and held out."""

    class_name: str
    train: int
    held_out: int
    image: Picture
    depth: Picture | None


@dataclass(frozen=True)
class Material:
    """Everything the page shows about a chain of stages, without times, hosts or paths of this machine."""

    stages: Mapping[str, Stage]
    params: Mapping[str, Any]
    scenes: tuple[Scene, ...]
    validation: Mapping[str, Any]
    photos: Mapping[str, Any]
    quarantine: tuple[Mapping[str, Any], ...]
    attribution: str


def collect(artifacts: Path, root: Path = Path()) -> Material:
    """Read an artifacts folder, and the params.yaml of the repository at `root`.

    Raises UserError when there is no such folder or a file in it is broken; a missing file is no error.
    """
    if not artifacts.is_dir():
        raise UserError(f"{artifacts} does not exist; run the graph first (dvc repro)")
    folders = sorted({path.parent for path in artifacts.glob("**/*") if _marks_a_stage(path)})
    stages = [_stage("@".join(f.relative_to(artifacts).parts), f, artifacts) for f in folders]
    return Material(
        stages={stage.name: stage for stage in stages},
        params=params.read(root / "params.yaml") if (root / "params.yaml").is_file() else {},
        scenes=_scenes(artifacts / "scenes"),
        validation=_json(artifacts / "validate" / "report.json"),
        photos=_json(artifacts / "photos" / "info.json"),
        quarantine=tuple(_json(artifacts / "photos" / "quarantine.json")),
        attribution=_text(artifacts / "photos" / "ATTRIBUTION.md"),
    )


def picture(path: Path) -> Picture:
    """A picture file as a data URI, its bytes as they are."""
    content = path.read_bytes()
    if len(content) > LIMIT:
        raise UserError(f"{path} has {len(content) / 1e6:.0f} MB; make the figure smaller than {LIMIT / 1e6:.0f} MB")
    return _embed(path.stem, content, path)


def crop(shown: Picture, width: int = 480, height: int = 360) -> Picture:
    """A detail of a grid of pictures: its first cells, without the labels above and beside them."""
    image = Image.open(BytesIO(base64.b64decode(shown.uri.partition(",")[2]))).convert("RGB")
    painted = np.asarray(image).min(axis=2) < PAPER  # (H, W)
    left, top = (int((painted.mean(axis) > HALF).argmax()) for axis in (0, 1))
    part = image.crop((left, top, min(left + width, image.width), min(top + height, image.height)))
    buffer = BytesIO()
    part.save(buffer, "PNG")
    return _embed(shown.name, buffer.getvalue(), Path(shown.name))


def _embed(name: str, content: bytes, where: Path) -> Picture:
    try:
        with Image.open(BytesIO(content)) as image:
            width, height = image.size
            kind = Image.MIME[image.format or ""]
    except (OSError, KeyError):
        raise UserError(f"{where} is not a picture that a page can show; run its stage again") from None
    return Picture(name, f"data:{kind};base64,{base64.b64encode(content).decode()}", width, height)


def _marks_a_stage(path: Path) -> bool:
    """Whether a path under artifacts/ is something that only a stage's own folder holds."""
    return path.name in ("metrics.json", "curves.csv", "info.json", "figures") and path.parent.name != "report"


def _stage(name: str, folder: Path, artifacts: Path) -> Stage:
    pictures = sorted((folder / "figures").glob("*.png")) if (folder / "figures").is_dir() else []
    files = [folder / tracked for tracked in TRACKED if (folder / tracked).is_file()]
    return Stage(
        name=name,
        pictures=tuple(picture(path) for path in pictures),
        metrics=_json(folder / "metrics.json"),
        charts=tuple(charts.charts_of(_rows(folder / "curves.csv"))),
        files=tuple(File(f.relative_to(artifacts).as_posix(), f.stat().st_size, digests.sha256(f)) for f in files),
    )


def _scenes(folder: Path) -> tuple[Scene, ...]:
    """The first held-out scene of each class with its depth, in the order of the classes."""
    if not (folder / "manifest.parquet").is_file():
        return ()
    from data.core.samples import Samples  # pyarrow: only where there is something to read
    from models.core.figures import colour_depth

    samples = Samples(folder)
    chosen: dict[int, int] = {}
    for i, row in sorted(enumerate(samples.rows), key=lambda pair: (pair[1]["split"] != "val", pair[0])):
        chosen.setdefault(int(row["label"]), i)
    splits = Counter((int(row["label"]), row["split"]) for row in samples.rows)
    scenes = []
    for label in sorted(chosen):
        members = samples.members(chosen[label])
        depth = None
        if "disp.png" in members:
            buffer = BytesIO()
            Image.fromarray(colour_depth(samples.disparity(chosen[label]))).save(buffer, "PNG")
            depth = _embed("depth", buffer.getvalue(), folder)
        scenes.append(
            Scene(
                class_name=samples.rows[chosen[label]]["class_name"],
                train=splits[label, "train"],
                held_out=splits[label, "val"],
                image=_embed("scene", members["rgb.png"], folder),
                depth=depth,
            )
        )
    return tuple(scenes)


def _json(path: Path) -> Any:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); run its stage again") from None


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def attributions(markdown: str) -> list[str]:
    """The entries of an ATTRIBUTION.md as plain sentences: headings and Markdown signs are dropped."""
    lines = [line.strip() for line in markdown.splitlines()]
    entries = [re.sub(r"^[-*]\s+", "", line) for line in lines if line and not line.startswith(("#", "|--", "---"))]
    plain = [re.sub(r"\*\*|`|<(?=http)|(?<=\S)>", "", entry) for entry in entries]
    return [re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r"\1 (\2)", entry) for entry in plain]
