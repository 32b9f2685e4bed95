"""`remint stack env`: what a user of the stack sets, here and from elsewhere."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from flows import settings
from flows.commands import stack as command
from infra.stack import compose, secrets, uses
from infra.stack.native import Stack

ROOT = Path(__file__).parents[2]


@pytest.fixture
def env(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_here", lambda: Stack(ROOT, tmp_path / "state", tmp_path / "secrets"))

    def run(*arguments):
        return CliRunner().invoke(command.stack, ["env", *arguments])

    return run


def read(done, folder):
    (folder / "said.env").write_text(done.output)
    return compose.variables_of(folder / "said.env")


def test_on_the_machine_of_the_containers_it_names_their_published_ports(env, tmp_path):
    secrets.make(tmp_path / "secrets")
    found = read(env("releaser"), tmp_path)
    assert found["REMINT_MLFLOW_URI"] == found["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert found["REMINT_PREFECT_API"] == "http://127.0.0.1:4200/api"
    assert found["REMINT_CATALOGUE"].endswith("@127.0.0.1:5432/catalogue")
    assert found["REMINT_REMOTE"] == "s3://remint-artifacts/dvc"


def test_behind_a_proxy_every_page_has_a_name_and_tls(env, tmp_path):
    secrets.make(tmp_path / "secrets")
    found = read(env("worker", "--domain", "remint.example.org"), tmp_path)
    assert found["REMINT_MLFLOW_URI"] == "https://mlflow.remint.example.org"
    assert found["REMINT_PREFECT_API"] == "https://prefect.remint.example.org/api"
    assert found["AWS_ENDPOINT_URL"] == "https://s3.remint.example.org"
    assert "REMINT_CATALOGUE" not in found  # no worker's


def test_without_secrets_it_says_what_to_do(env):
    done = env("reader")
    assert done.exit_code == 2
    assert "make stack-secrets" in done.output


@pytest.mark.parametrize("user", uses.USERS)
def test_what_it_prints_are_settings_that_load(env, tmp_path, monkeypatch, user):
    secrets.make(tmp_path / "secrets")
    for name, value in read(env(user), tmp_path).items():
        monkeypatch.setenv(name, value)
    assert settings.load(tmp_path).stages == "workers"
