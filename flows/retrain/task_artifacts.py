"""What a stage's Prefect task shows beside its log: the metrics as a table and the first figures as pictures."""

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from flows.pipeline.graph import Stage
from flows.pipeline.run import StageResult
from flows.stage.progress_artifact import key

FIGURES = 2  # per stage; MLflow has them all
PIXELS = 1000  # longest side: an artifact is a row of Prefect's database


def show(stage: Stage, result: StageResult, root: Path) -> None:
    """Attach a stage's metrics and figures to the Prefect task that is running."""
    from prefect.artifacts import create_image_artifact, create_markdown_artifact

    if result.metrics:
        described = f"Metrics of {stage.name}"
        create_markdown_artifact(table(result.metrics), key=key(f"{stage.name}-metrics"), description=described)
    for path in list(figures(stage, root))[:FIGURES]:
        name = key(f"{stage.name}-{path.stem}")
        create_image_artifact(picture(path), key=name, description=f"{path.name} of {stage.name}")


def table(metrics: Mapping[str, float]) -> str:
    """Metrics as a Markdown table."""
    rows = [f"| {name} | {value:.6g} |" for name, value in metrics.items()]
    return "\n".join(["| metric | value |", "|---|---:|", *rows])


def figures(stage: Stage, root: Path) -> Iterator[Path]:
    """The pictures in a stage's `figures` folder."""
    for out in stage.outs:
        folder = root / out if Path(out).name == "figures" else root / out / "figures"
        yield from sorted(folder.glob("*.png"))


def picture(path: Path) -> str:
    """A picture as a data: URL. Prefect's page shows any image address, and a run's files have no web server."""
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((PIXELS, PIXELS))
    made = io.BytesIO()
    small.save(made, "PNG", optimize=False)
    return "data:image/png;base64," + base64.b64encode(made.getvalue()).decode()
