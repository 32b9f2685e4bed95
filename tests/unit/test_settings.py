"""Settings come from REMINT_* variables, with embedded defaults."""

import shutil
import sys
from pathlib import Path

import pytest

from data.core.params import UserError
from flows import settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in ("HOME", "MLFLOW_URI", "PREFECT_API", "PHOTOS", "CORES", "CACHE_GB", "CHECKPOINTS"):
        monkeypatch.delenv(f"REMINT_{name}", raising=False)


def test_by_default_everything_lies_below_the_main_checkout(tmp_path):
    found = settings.load(tmp_path)
    assert found.home == tmp_path / ".remint"
    assert found.mlflow_uri == f"sqlite:///{tmp_path}/.remint/mlflow.db"
    assert (found.prefect_api, found.photos) == (None, None)
    assert found.cores >= 1


def test_variables_win_and_an_empty_one_counts_as_unset(tmp_path, monkeypatch):
    monkeypatch.setenv("REMINT_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("REMINT_CORES", "3")
    monkeypatch.setenv("REMINT_MLFLOW_URI", "")
    found = settings.load(tmp_path)
    assert (found.home, found.cores) == (tmp_path / "elsewhere", 3)
    assert found.mlflow_uri == f"sqlite:///{tmp_path}/elsewhere/mlflow.db"


@pytest.mark.parametrize(
    ("value", "kept"),
    [("", "{root}/.remint/checkpoints"), ("here", "{root}/here"), ("s3://bucket/some", "s3://bucket/some")],
)
def test_checkpoints_stay_where_no_worktree_takes_them_along(tmp_path, monkeypatch, value, kept):
    monkeypatch.setenv("REMINT_CHECKPOINTS", value)
    found = settings.child_environment(settings.load(tmp_path))
    assert found["REMINT_CHECKPOINTS"] == kept.format(root=tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("CORES", "0"), ("CACHE_GB", "0"), ("CACHE_GB", "nan"), ("CACHE_GB", "200 GB")]
)
def test_a_wrong_value_names_its_variable(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(f"REMINT_{name}", value)
    with pytest.raises(UserError, match=f"REMINT_{name}="):
        settings.load(tmp_path)


def test_child_processes_send_no_telemetry_and_keep_their_state_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    found = settings.child_environment(settings.load(tmp_path))
    assert found.items() >= settings.QUIET.items()
    assert found["PREFECT_HOME"] == str(tmp_path / ".remint" / "prefect")
    assert found["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/.remint/mlflow.db"
    assert found["REMINT_HOME"] == str(tmp_path / ".remint")


def test_stages_run_with_the_python_of_the_command_line(tmp_path):
    found = settings.child_environment(settings.load(tmp_path))
    assert shutil.which("python", path=found["PATH"]) == str(Path(sys.executable).with_name("python"))


def test_no_variable_chooses_the_code_of_a_stage_and_the_others_stay(tmp_path, monkeypatch):
    foreign = (
        *("PYTHONSAFEPATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONINSPECT"),
        *("PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONPYCACHEPREFIX", "PYTHONBREAKPOINT", "PYTHONHASHSEED"),
        *("LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "BASH_ENV", "BASH_FUNC_python%%", "ENV", "ZDOTDIR"),
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG"),
        *("GIT_EXTERNAL_DIFF", "GIT_ATTR_SOURCE", "GIT_NAMESPACE", "GIT_AUTHOR_DATE", "DVC_ROOT", "DVC_EXP_NAME"),
    )
    own = (
        *("https_proxy", "NO_PROXY", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "AWS_PROFILE"),
        *("GIT_AUTHOR_NAME", "GIT_COMMITTER_EMAIL", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_COUNT"),
        *("GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0", "GIT_SSL_CAINFO", "HOME", "LANG", "TMPDIR"),
    )
    for name in (*foreign, *own):
        monkeypatch.setenv(name, "of the user's")
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    found = settings.child_environment(settings.load(tmp_path))
    assert [name for name in foreign if name in found] == []
    assert [name for name in own if found.get(name) != "of the user's"] == []
    assert (found["SHELL"], found["PYTHONUTF8"], found["PYTHONNOUSERSITE"]) == ("/bin/sh", "1", "1")


def test_a_python_that_stages_would_not_find_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    with pytest.raises(UserError, match="python3 has no `python` beside it"):
        settings.child_environment(settings.load(tmp_path))


def test_a_path_that_is_too_long_for_databases_is_said_with_what_helps(tmp_path, monkeypatch):
    monkeypatch.setenv("REMINT_HOME", str(tmp_path / "home"))
    deep = tmp_path / ("d" * 200) / ("e" * 200)
    settings.load(deep)
    monkeypatch.delenv("REMINT_HOME")
    with pytest.raises(UserError, match=r"is too long: SQLite opens no file .*; name another folder with REMINT_HOME"):
        settings.load(deep)
