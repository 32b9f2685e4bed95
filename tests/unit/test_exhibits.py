"""What a task shows in Prefect: its metrics as a table, its figures as pictures that need no web server."""

import base64
import io

import pytest

from flows.pipeline.graph import Stage
from flows.retrain import task_artifacts


@pytest.fixture
def root(tmp_path):
    from PIL import Image

    for path in ("artifacts/a/figures/two.png", "artifacts/a/figures/one.png", "artifacts/b/figures/three.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2500, 1250), "navy").save(tmp_path / path)
    return tmp_path


def test_figures_are_found_in_an_out_that_is_the_folder_and_in_one_that_has_it(root):
    stage = Stage("x", "x", outs=("artifacts/a/figures", "artifacts/b", "artifacts/c.json"))
    assert [path.name for path in task_artifacts.figures(stage, root)] == ["one.png", "two.png", "three.png"]


def test_a_picture_becomes_a_small_data_url(root):
    from PIL import Image

    head, data = task_artifacts.picture(root / "artifacts/a/figures/one.png").split(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (1000, 500)


def test_metrics_become_a_markdown_table():
    assert task_artifacts.table({"psnr": 20.123456789, "count": 3.0}).splitlines()[2:] == [
        "| psnr | 20.1235 |",
        "| count | 3 |",
    ]
