"""What `remint worker` says when a machine cannot serve: at once, in one line, with the variable that is wrong."""

import subprocess

import pytest

from data.core.params import UserError
from flows import settings
from flows.workers import serve

pytestmark = pytest.mark.integration


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone of an origin with one commit, and a Prefect server in its variables that is not there."""
    subprocess.run(["git", "init", "--quiet", "origin"], cwd=tmp_path, check=True)
    (tmp_path / "origin" / ".dvc").mkdir()
    for name, text in {"dvc.yaml": "{}\n", "params.yaml": "{}\n", ".dvc/config": ""}.items():
        (tmp_path / "origin" / name).write_text(text)
    for words in (["add", "--all"], ["commit", "--quiet", "-m", "One"]):
        subprocess.run(["git", *words], cwd=tmp_path / "origin", check=True)
    subprocess.run(["git", "clone", "--quiet", "origin", "clone"], cwd=tmp_path, check=True)
    monkeypatch.setenv("REMINT_PREFECT_API", "http://127.0.0.1:9/api")
    monkeypatch.setattr(serve, "ANSWER_SECONDS", 0.1)
    return tmp_path / "clone"


@pytest.mark.parametrize(
    ("pool", "name", "words"),
    [
        ("gpus", None, "--pool gpus: there is no such pool; did you mean 'gpu'"),
        ("cpu", "../x", "'../x' is not a name for a worker"),
        ("cpu", None, "REMINT_PREFECT_API=http://127.0.0.1:9/api: no Prefect server answers"),
    ],
)
def test_a_pool_a_name_or_a_server_that_is_none(clone, pool, name, words):
    with pytest.raises(UserError, match=words):
        serve.serve(clone, pool, name, "cpu")


def test_a_repository_without_origin_and_a_server_that_is_not_named(clone, monkeypatch):
    with pytest.raises(UserError, match="has no remote 'origin'.*work in a clone"):
        serve.serve(clone.parent / "origin", "cpu", None, "")
    monkeypatch.delenv("REMINT_PREFECT_API")
    with pytest.raises(UserError, match="REMINT_PREFECT_API is not set"):
        serve.serve(clone, "cpu", None, "")


@pytest.mark.parametrize(
    ("variable", "value", "pool", "words"),
    [
        ("REMINT_MLFLOW_URI", "http://127.0.0.1:9", "cpu", "REMINT_MLFLOW_URI=http://127.0.0.1:9"),
        ("REMINT_REMOTE", "ftp://nobody/here", "cpu", "REMINT_REMOTE is neither a folder nor s3://"),
        ("REMINT_LEDGER", "ftp://nobody/here", "cpu", "REMINT_LEDGER is neither a folder nor s3://"),
        ("REMINT_CATALOGUE", "postgresql+psycopg://x@127.0.0.1:9/y", "flows", "REMINT_CATALOGUE"),
    ],
)
def test_another_server_that_is_not_there(clone, monkeypatch, variable, value, pool, words):
    monkeypatch.setattr(serve.connect, "check", lambda api: None)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=words):
        serve.check(settings.load(clone), pool)


@pytest.mark.parametrize(
    ("names", "pool", "value"),
    [("", "cpu", "-1"), ("cpu", "gpu", "-1"), ("", "gpu", "0,1"), ("1", "gpu", "1"), ("1, 0,1", "gpu", "1,0")],
)
def test_the_devices_of_a_worker(names, pool, value):
    assert serve.visible(names, pool, ("0", "1")) == value


def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(UserError, match="there is no GPU '7' on this machine; GPUs: 0, 1"):
        serve.visible("7", "gpu", ("0", "1"))
    with pytest.raises(UserError, match="no GPU for pool gpu on this machine.*`--devices cpu`"):
        serve.visible("", "gpu", ())
