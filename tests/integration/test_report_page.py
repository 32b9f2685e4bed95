"""The report in a real browser: its pictures decode, it requests nothing, and a phone shows it without scrolling."""

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import code

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
  widths: [...document.images].map(image => image.complete ? image.naturalWidth : 0),
  requests: performance.getEntriesByType("resource").map(entry => entry.name),
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
}), "*"))</script>"""
FRAME = """<script>addEventListener("message", event => document.title = "PROBE" + event.data)</script>
<iframe src="page.html" width="{width}" height="900"></iframe>"""  # a window has a least width, a frame has none


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a chain with a wide figure, curves and a long name, made by the stage's own command."""
    root = tmp_path_factory.mktemp("report")
    stage = root / "artifacts" / "evaluate" / "tokenizer"
    (stage / "figures").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (90, 1400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stage / "figures" / "reconstructions.png")
    (stage / "metrics.json").write_text(json.dumps({"psnr": 20.5, "codebook_usage": 98.0}))
    proxy = root / "artifacts" / "proxy"
    (proxy / "model").mkdir(parents=True)
    (proxy / "model" / "model.safetensors").write_bytes(b"weights")
    (proxy / "curves.csv").write_text("step,train_loss\n" + "".join(f"{i},{9 / i}\n" for i in range(1, 60)))
    code.put(root)
    command = [sys.executable, "-m", "models.report", "--artifacts", "artifacts", "--out", "artifacts/report"]
    subprocess.run(command, cwd=root, env={"PATH": ""}, check=True, capture_output=True)
    return root / "artifacts" / "report" / "report.html"


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: chromium is not installed")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_all_pictures_without_any_request(report: Path, tmp_path: Path, width: int) -> None:
    text = report.read_text().replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    (tmp_path / "page.html").write_text(text.replace("</head>", f"{PROBE}</head>"))
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    seen = probe(tmp_path / "frame.html", tmp_path / "profile")
    assert seen["widths"]
    assert all(seen["widths"])
    assert [name for name in seen["requests"] if not name.startswith("data:")] == []
    assert seen["overflow"] <= 0


def test_the_stage_writes_the_same_bytes_again(report: Path, tmp_path: Path) -> None:
    root = report.parents[2]
    command = [sys.executable, "-m", "models.report", "--artifacts", "artifacts", "--out", str(tmp_path)]
    subprocess.run(command, cwd=root, env={"PATH": ""}, check=True, capture_output=True)
    assert (tmp_path / "report.html").read_bytes() == report.read_bytes()


def test_the_stage_names_a_missing_folder_in_one_line(tmp_path: Path) -> None:
    code.put(tmp_path)
    command = [sys.executable, "-m", "models.report", "--artifacts", "nowhere", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: nowhere does not exist; run the graph first (dvc repro)\n"


def probe(page: Path, profile: Path) -> dict:
    """What the page's own script found out once it was loaded."""
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    quiet = "--disable-component-update --disable-sync --virtual-time-budget=3000"
    where = [f"--user-data-dir={profile}", "--window-size=1400,900", "--dump-dom", page.as_uri()]
    command = [str(CHROMIUM), *flags.split(), *quiet.split(), *where]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.search(r"<title>PROBE(.*?)</title>", dom)
    assert found, "the browser did not load the page"
    return json.loads(unescape(found[1]))
