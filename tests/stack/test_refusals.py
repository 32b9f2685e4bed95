"""Servers that are not there or do not let us in: one line that says which, and names the variable."""

import base64
import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from data.core.params import UserError
from flows.server import connect
from infra.stack import online
from models.tracking import server as mlflow_server
from models.tracking import training_run


class Guarded(BaseHTTPRequestHandler):
    """Health for everybody, the rest for one user, as MLflow and Prefect have it."""

    login = "ann:right"

    def do_GET(self):
        wanted = "Basic " + base64.b64encode(self.login.encode()).decode()
        allowed = self.path.endswith("/health") or self.headers.get("Authorization") == wanted
        self.send_response(200 if allowed else 401)
        self.end_headers()
        if allowed:
            self.wfile.write(
                json.dumps([{"name": "one", "status": "ONLINE"}, {"name": "b", "status": "OFFLINE"}]).encode()
            )

    do_POST = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def guarded(monkeypatch):
    for name in (
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "PREFECT_API_AUTH_STRING",
    ):
        monkeypatch.delenv(name, raising=False)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Guarded) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


NOWHERE = "http://TOKEN@127.0.0.1:9"


def test_mlflow_that_wants_a_login_names_the_variables(guarded):
    with pytest.raises(
        UserError, match="401.*it wants the user and password of MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING"
    ):
        mlflow_server.check(guarded)


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_for_mlflow_is_not_repeated(guarded, monkeypatch, password):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as error:
        mlflow_server.check(guarded)
    assert "wrong" not in str(error.value)
    assert training_run.connect(guarded) == (None, str(error.value).removeprefix("REMINT_MLFLOW_URI: "))


def test_the_right_login_for_mlflow_is_taken_from_variables_or_from_the_address(guarded, monkeypatch):
    mlflow_server.check(guarded.replace("//", "//ann:right@"))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "right")
    mlflow_server.check(guarded)


def test_prefect_that_wants_a_login_names_the_variable(guarded, monkeypatch):
    api = f"{guarded}/api"
    with pytest.raises(UserError, match="401.*wants a user and password, as user:password, in PREFECT_API_AUTH_STRING"):
        connect.check(api)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "ann:wrong")
    with pytest.raises(UserError, match="401.*does not know the user and password in PREFECT_API_AUTH_STRING") as error:
        connect.check(api)
    assert "ann" not in str(error.value)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "ann:right")
    connect.check(api)


def test_a_server_that_is_not_there_is_named_with_its_variable_and_without_the_token_in_it():
    with pytest.raises(
        UserError, match=r"REMINT_MLFLOW_URI=http://127.0.0.1:9: no MLflow server answers there; start it"
    ):
        mlflow_server.check(NOWHERE)
    with pytest.raises(UserError, match=r"REMINT_PREFECT_API=http://127.0.0.1:9/api: no Prefect server answers there"):
        connect.check(f"{NOWHERE}/api")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://TOKEN@host/path", "https://host/path"),
        ("https://ann:p%40ss@host:5000", "https://host:5000"),
        ("http://ann:p@ss@host", "http://host"),
        ("postgresql+psycopg://ann:secret@host/db", "postgresql+psycopg://host/db"),
        ("sqlite:////home/ann@work/mlflow.db", "sqlite:////home/ann@work/mlflow.db"),
        ("http://host/a@b", "http://host/a@b"),
        ("nonsense", "nonsense"),
    ],
)
def test_an_address_is_shown_without_what_opens_it(address, shown):
    assert mlflow_server.shown(address) == shown


def test_the_workers_health_check_counts_only_those_that_live(guarded, monkeypatch, capsys):
    monkeypatch.setenv("REMINT_PREFECT_API", f"{guarded}/api")
    monkeypatch.setattr("sys.argv", ["online", "cpu"])
    assert online.main() == 1
    assert "401" in capsys.readouterr().out
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "ann:right")
    assert online.main() == 0
    assert capsys.readouterr().out == "cpu: one\n"
