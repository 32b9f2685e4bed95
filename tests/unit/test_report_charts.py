"""Training curves: which columns share a drawing, how numbers are written, and what the SVG holds."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from models.report.charts import Chart, Series, charts_of, draw, number, ticks


def test_training_and_validation_share_a_chart() -> None:
    rows = [{"step": "1", "train_loss": "3", "val_loss": "4", "train_lr": "1"}]
    rows.append({"step": "2", "train_loss": "2", "val_loss": "3", "train_lr": "2"})
    assert [(c.title, [s.name for s in c.series]) for c in charts_of(rows)] == [
        ("loss", ["train", "val"]),
        ("lr", ["train"]),
    ]


def test_empty_and_not_finite_cells_are_left_out() -> None:
    rows = [{"step": str(i), "val_loss": value} for i, value in enumerate(["", "2", "nan", "1", "inf"])]
    assert charts_of(rows)[0].series[0] == Series("val", (1.0, 3.0), (2.0, 1.0))


def test_a_column_of_one_point_is_drawn_only_beside_a_line() -> None:
    assert charts_of([{"step": "1", "train_loss": "3"}]) == []
    assert charts_of([]) == []
    rows = [{"step": "1", "train_loss": "3", "val_loss": ""}, {"step": "2", "train_loss": "2", "val_loss": "2.5"}]
    assert charts_of(rows)[0].series[1] == Series("val", (2.0,), (2.5,))
    assert "val" in draw(charts_of(rows)[0])


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (1024, "1024"), (20.941, "20.94"), (0.6121, "0.612"), (0.0066, "0.0066"), (1.2e-5, "1.2e-5")],
)
def test_numbers_are_short_and_clear(value: float, written: str) -> None:
    assert number(value) == written


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.03, 0.97) == [0.2, 0.4, 0.6, 0.8]
    assert ticks(5, 5) == [5]


def test_a_loss_that_falls_far_is_drawn_on_a_log_scale() -> None:
    steps = tuple(float(i) for i in range(1, 101))
    falling = Chart("loss", (Series("train", steps, tuple(100 / s for s in steps)),))
    rising = Chart("perplexity", (Series("train", steps, tuple(4 * s for s in steps)),))
    assert "log scale" in draw(falling)
    assert "log scale" not in draw(rising)


def test_a_drawing_is_well_formed_stays_in_its_frame_and_says_what_it_shows() -> None:
    steps = tuple(float(i) for i in range(400))
    noisy = tuple(3 + (i * 7919 % 13) / 10 - i / 200 for i in range(400))
    svg = draw(Chart("loss", (Series("train", steps, noisy), Series("val", (0.0, 399.0), (4.0, 2.0)))))
    root = ElementTree.fromstring(svg)
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    points = [tuple(map(float, p.split(","))) for line in root.iter("polyline") for p in line.attrib["points"].split()]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
    assert root.attrib["aria-label"].startswith("loss by training step: train from 3")
    assert re.search(r">val <tspan", svg)


def test_labels_of_close_lines_do_not_touch() -> None:
    svg = draw(Chart("loss", (Series("train", (0.0, 1.0), (2.0, 1.0)), Series("val", (0.0, 1.0), (2.0, 1.001)))))
    heights = [float(t.attrib["y"]) for t in ElementTree.fromstring(svg).iter("text") if "end" in t.attrib["class"]]
    assert abs(heights[0] - heights[1]) >= 14


def test_a_flat_line_can_be_drawn() -> None:
    ElementTree.fromstring(draw(Chart("usage", (Series("usage", (0.0, 1.0), (5.0, 5.0)),))))


def test_names_from_files_are_escaped() -> None:
    svg = draw(Chart("<b>", (Series("<i>", (0.0, 1.0), (2.0, 1.0)),)))
    assert "<b>" not in svg
    assert "<i>" not in svg
