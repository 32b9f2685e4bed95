"""`remint ui`: both servers answer, take other ports when theirs are taken, and end together."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from data.params import UserError
from flows import ui
from flows.settings import Settings

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
SERVE = (
    "import sys; from pathlib import Path; from flows import settings, ui; ui.serve(settings.load(Path(sys.argv[1])))"
)


@pytest.mark.slow
def test_both_pages_answer_and_ctrl_c_ends_both(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        addresses = re.findall(r"http://127\.0\.0\.1:\d+", "".join(lines))
        assert len(addresses) == 2, process.communicate(timeout=5)
        pages = [urllib.request.urlopen(f"{address}/", timeout=10).read().lower() for address in addresses]
        assert b"mlflow" in pages[0]
        assert b"prefect" in pages[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
    assert process.returncode == 0
    for address in addresses:
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(address, timeout=2)


def test_a_taken_port_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ui.free_port(port) > port


def test_servers_that_run_elsewhere_are_named_and_not_started(tmp_path, capsys):
    named = Settings(root=tmp_path, mlflow_uri="http://user:secret@mlflow:5000", prefect_api="http://prefect:4200/api")
    ui.serve(named)
    said = capsys.readouterr().out
    assert "http://mlflow:5000" in said
    assert "http://prefect:4200" in said
    assert "secret" not in said


def test_a_server_that_cannot_start_is_named_with_its_log(tmp_path, monkeypatch):
    broken = ui.Page("MLflow", "http://127.0.0.1:9", "http://127.0.0.1:9/health", ["false"])
    monkeypatch.setattr(ui, "mlflow_page", lambda _: broken)
    with pytest.raises(UserError, match=r"MLflow's server did not start; its words are in .*mlflow-ui\.log"):
        ui.serve(Settings(root=tmp_path, prefect_api="http://prefect:4200/api"))
