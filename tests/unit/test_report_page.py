"""The report page: what it shows, what it says when something is missing, and that it needs nothing else."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.core import manifest, samples, shards
from data.core.params import UserError
from models.report import collect, page
from models.report.facts import Compared, Cost, Rule, RunFacts, StageRow, Verdict, Version
from models.report.graph import Graph

EVIL = "<script>alert('x')</script>&\""


def save_figure(folder: Path, name: str, size: tuple[int, int] = (80, 60)) -> None:
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 80, 40)).save(folder / "figures" / f"{name}.png")


def save_metrics(folder: Path, values: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(values))


def save_scenes(folder: Path) -> None:
    folder.mkdir(parents=True)
    image = np.full((16, 16, 3), 90, np.uint8)
    image[4:9] = 200
    members = {"rgb.png": samples.encode_png(image), "disp.png": samples.encode_disparity(image[..., 0] / 255.0)}
    entries = shards.write(folder, "scenes", [(f"{i:08d}", members) for i in range(4)], 10)
    rows = [
        manifest.row(e, image, source="mitsuba", licence="CC0-1.0", label=i % 2, class_name=("glass", "wires")[i % 2],
                     split="val" if i < 2 else "train", depth_min=1.0, depth_max=2.0, valid_share=1.0)
        for i, e in enumerate(entries)
    ]  # fmt: skip
    manifest.write(rows, folder)


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    root = tmp_path / "artifacts"
    save_scenes(root / "scenes")
    save_metrics(root / "evaluate" / "tokenizer", {"psnr": 20.94, "not_declared": 1.5})
    save_figure(root / "evaluate" / "tokenizer", "reconstructions")
    save_metrics(
        root / "evaluate" / "depth",
        {"teacher": {"delta1": 0.84, "delta1_glass": 0.71}, "small": {"delta1": 0.81, "delta1_glass": 0.69}},
    )
    save_metrics(root / "proxy", {"psnr": 22.0})
    (root / "proxy" / "curves.csv").write_text("step,train_loss,val_loss\n1,3,\n2,2,2.5\n3,1,1.5\n")
    (root / "proxy" / "model").mkdir()
    (root / "proxy" / "model" / "model.safetensors").write_bytes(b"weights")
    photos = root / "photos"
    photos.mkdir()
    (photos / "info.json").write_text(json.dumps({"tiles": 5, "photographs": 2}))
    (photos / "quarantine.json").write_text(json.dumps([{"name": f"{EVIL}.jpg", "reason": "is truncated"}]))
    (photos / "ATTRIBUTION.md").write_text(
        "# Photographs\n\n- china.jpg by [A. Author](https://example.org/a), CC BY\n"
    )
    return root


def render(artifacts: Path, run: RunFacts | None = None) -> str:
    return page.render(collect.collect(artifacts, artifacts.parent), run)


def some_run(tag: str = "run/1") -> RunFacts:
    return RunFacts(
        run_id="20260101T000000Z-abcdef0",
        commit="abcdef0123456789",
        tag=tag,
        lock_digest="10cd" * 16,
        seconds=61.0,
        graph=Graph(("scenes", "proxy"), (("scenes", "proxy"),)),
        stages=(StageRow("proxy", "ran", 12.34, "psnr 22"), StageRow("scenes", "current", 0.0)),
        verdicts=(
            Verdict("tokenizer", 3, "refused", False, "", 2, (Compared("psnr", 20.94, 21.5),),
                    (Rule("psnr >= 21", False, 20.94, 21.0),)),
        ),
        versions=(Version("maskgit", 3, "8e2f" * 16, (("tokenizer", "77aa" * 16),)),),
    )  # fmt: skip


def test_the_page_shows_metrics_with_their_direction_and_meaning(artifacts: Path) -> None:
    text = render(artifacts)
    assert "20.94" in text
    assert "higher is better" in text
    assert "peak signal-to-noise ratio" in text


def test_an_undeclared_metric_is_shown_without_direction(artifacts: Path) -> None:
    assert "Not declared" in render(artifacts)


def test_models_of_one_evaluation_stand_side_by_side(artifacts: Path) -> None:
    text = render(artifacts)
    assert re.search(r"<th class=\"n\">teacher</th><th class=\"n\">small</th>", text)
    assert "0.840" in text
    assert "0.810" in text


def test_classes_have_a_table_of_their_own(artifacts: Path) -> None:
    text = render(artifacts)
    assert re.search(r"<td class=\"metric\">glass</td><td class=\"n\">0\.710</td><td class=\"n\">0\.690</td>", text)


def test_scenes_are_counted_by_class_and_split(artifacts: Path) -> None:
    scenes = collect.collect(artifacts, artifacts.parent).scenes
    assert [(s.class_name, s.train, s.held_out) for s in scenes] == [("glass", 1, 1), ("wires", 1, 1)]


def test_weights_are_named_by_their_digest(artifacts: Path) -> None:
    text = render(artifacts)
    assert "proxy/model/model.safetensors" in text
    assert collect.collect(artifacts, artifacts.parent).stages["proxy"].files[0].sha256 in text


def test_texts_from_files_are_escaped(artifacts: Path) -> None:
    text = render(artifacts, some_run(tag=EVIL))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 2


def test_nothing_is_loaded_from_elsewhere(artifacts: Path) -> None:
    text = render(artifacts, some_run())
    assert re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", text) == []
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_every_picture_has_an_alternative_text(artifacts: Path) -> None:
    images = re.findall(r"<img [^>]*>", render(artifacts))
    assert images
    assert all(re.search(r"alt=\"[^\"]+\"", image) for image in images)


def test_the_same_artifacts_give_the_same_page(artifacts: Path) -> None:
    assert render(artifacts) == render(artifacts)


def test_the_page_names_no_path_of_this_machine(artifacts: Path) -> None:
    assert str(artifacts.parent) not in render(artifacts, some_run())


def test_an_empty_folder_gives_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    text = render(tmp_path)
    assert "the stage <code>scenes</code> has not run" in text
    assert "Not evaluated yet" in text
    assert "<code>dvc dag</code>" in text


def test_a_missing_folder_is_a_mistake_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the graph first"):
        collect.collect(tmp_path / "nowhere")


def test_a_broken_figure_is_named(artifacts: Path) -> None:
    (artifacts / "evaluate" / "tokenizer" / "figures" / "reconstructions.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"reconstructions\.png is not a picture"):
        collect.collect(artifacts, artifacts.parent)


def test_a_run_adds_its_verdicts_stages_and_lineage(artifacts: Path) -> None:
    text = render(artifacts, some_run())
    assert "version 3, refused" in text
    assert "psnr &gt;= 21" in text
    assert "−0.560" in text
    assert "12.3" in text
    assert "10cd" * 16 in text
    assert 'class="stage data current"' in text
    assert "77aa77aa77aa" in text


def test_what_a_run_cost_is_a_table_with_its_sum(artifacts: Path) -> None:
    cost = Cost(
        ("stage", "machine", "saved"), (("a & b", "12 s", ""), ("scenes", "-", "3 min 50 s")), ("in all", "12 s", "")
    )
    text = render(artifacts, replace(some_run(), cost=cost))
    assert '<td class="metric">a &amp; b</td><td class="n">12 s</td><td class="n">–</td>' in text
    assert text.index("3 min 50 s") < text.index("<tfoot>") < text.index(">in all<")
    assert "saved what it cost when it was made" in text
    unsaved = Cost(("stage", "machine"), (("scenes", "12 s"),), ("in all", "12 s"))
    assert "saved what it cost" not in render(artifacts, replace(some_run(), cost=unsaved))
    assert "<h3>Cost</h3>" not in render(artifacts, some_run())


def test_without_a_run_the_page_has_no_run_section(artifacts: Path) -> None:
    assert 'id="run"' not in render(artifacts)


def test_attributions_keep_the_author_and_the_address() -> None:
    lines = collect.attributions("# Photographs\n\n- **a.jpg** by [B](https://example.org), CC BY 2.0\n")
    assert lines == ["a.jpg by B (https://example.org), CC BY 2.0"]


def test_a_detail_leaves_out_labels_beside_the_pictures(tmp_path: Path) -> None:
    sheet = Image.new("RGB", (300, 200), (255, 255, 255))
    sheet.paste((10, 20, 30), (60, 26, 300, 200))
    sheet.save(tmp_path / "sheet.png")
    detail = collect.crop(collect.picture(tmp_path / "sheet.png"), 100, 80)
    assert (detail.width, detail.height) == (100, 80)


def test_small_pictures_are_enlarged_by_whole_pixels_and_stay_on_the_screen() -> None:
    assert collect.Picture("a", "", 64, 64).scale == 9
    assert collect.Picture("a", "", 32, 240).scale == 2
    assert collect.Picture("a", "", 1500, 900).scale == 1


def test_a_first_release_has_no_column_for_production(artifacts: Path) -> None:
    run = replace(
        some_run(),
        verdicts=(
            Verdict("tokenizer", 1, "in production now", True, "first release", None, (Compared("psnr", 20.0),)),
        ),
    )
    text = render(artifacts, run)
    assert "first release" in text
    assert ">change</th>" not in text


def test_validation_counts_what_holds_and_names_what_does_not(artifacts: Path) -> None:
    kept = {"expectation": "unique", "column": "key", "description": "", "success": True, "unexpected": 0}
    broken = {**kept, "column": "brightness", "success": False, "unexpected": 3}
    report = {
        "success": True,
        "warnings": 1,
        "facts": {"scenes": "2 to train on"},
        "suites": [{"suite": "photos", "results": [kept, broken]}],
    }
    (artifacts / "validate").mkdir()
    (artifacts / "validate" / "report.json").write_text(json.dumps(report))
    text = render(artifacts)
    assert "1 of 2 expectations hold, with 1 warning." in text
    assert "photos: unique on brightness, 3 rows" in text


def test_a_run_links_to_the_data_docs_that_stay_with_it_and_to_none_that_are_gone(artifacts: Path) -> None:
    (artifacts / "validate").mkdir()
    (artifacts / "validate" / "report.json").write_text('{"success": true, "warnings": 0, "suites": []}')
    assert '<a href="data-docs/index.html">' in render(artifacts, replace(some_run(), docs="data-docs/index.html"))
    assert "Data Docs" not in render(artifacts, some_run())
    assert '<a href="../validate/docs/index.html">' in render(artifacts)
