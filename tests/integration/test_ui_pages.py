"""`remint ui`: both servers answer, take other ports when theirs are taken, and end together."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from data.core.params import UserError
from flows.server import pages
from flows.settings import Settings

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SERVE = "import sys; from pathlib import Path; from flows import settings; "
SERVE += "from flows.server import pages; pages.serve(settings.load(Path(sys.argv[1])))"


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """What `remint ui` prints, while both servers run; Ctrl-C ends both."""
    folder = tmp_path_factory.mktemp("shown")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        found = re.findall(r"http://127\.0\.0\.1:\S+", "".join(lines))
        assert len(found) == 2, process.communicate(timeout=5)
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
    assert process.returncode == 0
    for address in found:
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(address, timeout=2)


@pytest.mark.slow
def test_both_pages_answer_mlflow_s_where_the_runs_are(addresses):
    mlflow, prefect = addresses
    assert mlflow.endswith("/#/experiments?workflowType=machine_learning")
    for address, tool in ((mlflow, "mlflow"), (prefect, "prefect")):
        with urllib.request.urlopen(address, timeout=10) as reply:
            assert tool.encode() in reply.read().lower()
            assert f"content-security-policy:{reply.headers['content-security-policy']}" == pages.POLICY


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: chromium is not installed")
@pytest.mark.parametrize("tool", ["mlflow", "prefect"])
def test_what_a_browser_shows_asks_no_other_machine_and_advertises_nothing(addresses, tmp_path, tool):
    address = addresses[["mlflow", "prefect"].index(tool)]
    log = tmp_path / "net.json"
    options = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", "--virtual-time-budget=15000"]
    command = [str(CHROMIUM), "--headless", *options, "--dump-dom", address]
    page = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    assert {"mlflow": "Model registry", "prefect": "Work Pools"}[tool] in page  # its script ran
    for words in ("Ready to scale", "Upgrade", "UI telemetry"):
        assert words not in page
    asked = set()
    for line in log.read_text().splitlines():  # an event each; the browser's own requests have no origin
        if '"initiator":"http' in line:
            asked.add(json.loads(line.strip().rstrip(","))["params"]["url"].split("/")[2].partition(":")[0])
    assert asked == {"127.0.0.1"}


def test_a_taken_port_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert pages.free_port(port) > port


def test_servers_that_run_elsewhere_are_named_and_not_started(tmp_path, capsys):
    named = Settings(root=tmp_path, mlflow_uri="http://user:secret@mlflow:5000", prefect_api="http://prefect:4200/api")
    pages.serve(named)
    said = capsys.readouterr().out
    assert "http://mlflow:5000" in said
    assert "http://prefect:4200" in said
    assert "secret" not in said


def test_a_server_that_cannot_start_is_named_with_its_log(tmp_path, monkeypatch):
    broken = pages.Page("MLflow", "http://127.0.0.1:9", "http://127.0.0.1:9/health", ["false"])
    monkeypatch.setattr(pages, "mlflow_page", lambda _: broken)
    with pytest.raises(UserError, match=r"MLflow's server did not start; see its words in .*mlflow-ui\.log"):
        pages.serve(Settings(root=tmp_path, prefect_api="http://prefect:4200/api"))
