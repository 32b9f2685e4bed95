"""Where a run keeps things and how much of the machine it may use: `REMINT_*` variables, with embedded defaults.

The fields of `Settings` are the one table of these variables; README's is made from it (`docs/variables.py`).
"""

import os
import site
import sys
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from data.core.params import UserError
from flows import repository
from flows.foreign import is_foreign
from models.tracking.embedded import database_uri

LONGEST = 380  # bytes of the home's path: SQLite takes 512, and DVC's own files there need 110 and a journal's ending
QUIET = {  # every tool's telemetry, update check and advertisements, off
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}


PLACES = ("production", "checkpoints", "remote", "ledger", "arrived")  # each a folder or s3://bucket/prefix
PLACE, HOME = "a folder or `s3://bucket/prefix`", "in `REMINT_HOME`"


def _variable(what: str, unset: str, default: Any = "", **limits: Any) -> Any:
    """A variable: what it is for, and in words what holds where it is not set."""
    return Field(default=default, description=what, json_schema_extra={"unset": unset}, **limits)


class Settings(BaseSettings):
    """What the flow needs to know about its surroundings; made once, by `load`."""

    model_config = SettingsConfigDict(env_prefix="REMINT_", frozen=True, env_ignore_empty=True)

    root: Path  # the main checkout: it owns .git, the DVC cache and, by default, .remint
    photos: Path | None = _variable(
        "a folder of photographs of your own, used instead of those", "`photos.source` in `params.yaml`", None
    )
    home: Path = _variable("databases, worktrees, logs, reports", "`.remint`", Path(".remint"))
    mlflow_uri: str = _variable("MLflow's server: tracking and registry", f"SQLite {HOME}")
    prefect_api: str | None = _variable("Prefect's server", "one is started for the run", None)
    catalogue: str = _variable("database of runs, versions and journal: PostgreSQL or SQLite", f"SQLite {HOME}")
    production: str = _variable(f"where releases are published: {PLACE}", f"folder {HOME}")
    checkpoints: str = _variable(f"where unfinished trainings are kept: {PLACE}", f"folder {HOME}")
    cores: int = _variable("how many stages may run at once", "number of cores", os.cpu_count() or 1, ge=1)
    stages: Literal["here", "workers"] = _variable(
        "`workers`: stages run on the pools that `dvc.yaml` names", "`here`", "here"
    )
    remote: str = _variable(f"DVC's remote, where runs and workers exchange outputs: {PLACE}", f"folder {HOME}")
    ledger: str = _variable(f"orders for workers, and what came of them: {PLACE}", f"folder {HOME}")
    cache: Path | None = _variable("DVC's cache, where clones of a machine share one", "each clone has its own", None)
    cache_gb: float | None = _variable(
        "size in GB above which workers remove what that cache has not used for longest",
        "none: only 2 GB stay free",
        None,
        gt=0.0,
        allow_inf_nan=False,
    )
    allowed: str = _variable(
        "branches and tags whose commits a worker runs, as patterns", "`main,remint/*,run/*`", "main,remint/*,run/*"
    )
    branch: str = _variable("branch of origin whose newest commit schedules retrain", "HEAD of the clone")
    vanished: float = _variable(
        "seconds without a sign of life after which a worker's stage is given to another", "120", 120.0, ge=40.0
    )
    incoming: str | None = _variable(f"where new photographs arrive, which is only read: {PLACE}", "nowhere", None)
    arrived: str = _variable(f"where those taken in are kept, with their list: {PLACE}", f"folder {HOME}")
    webhook: SecretStr | None = _variable(  # many services put a secret into the address itself
        "http(s) address that is told of releases, refusals, failures, alarms, drift", "nobody", None
    )
    webhook_token: SecretStr | None = _variable("secret sent to it as `Authorization: Bearer`", "none", None)
    price_cpu: float | None = _variable(
        "price of an hour of CPU time, for `remint cost`", "none", None, ge=0.0, allow_inf_nan=False
    )
    price_gpu: float | None = _variable("price of an hour of one GPU", "none", None, ge=0.0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: dict) -> dict:
        """Relative folders are meant from the main checkout; where nothing is named, everything lies in the home."""
        root = Path(values["root"]).resolve()
        home = root / Path(values.get("home") or ".remint").expanduser()
        uri = values.get("mlflow_uri") or database_uri(home / "mlflow.db")
        catalogue = values.get("catalogue") or database_uri(home / "catalogue.db")
        named = {name: values.get(name) or str(home / name) for name in PLACES}
        if values.get("incoming"):
            named["incoming"] = values["incoming"]
        places = {name: at if "://" in at else str(root / Path(at).expanduser()) for name, at in named.items()}
        return values | {"root": root, "home": home, "mlflow_uri": uri, "catalogue": catalogue, **places}

    @property
    def worktrees(self) -> Path:
        return self.home / "worktrees"

    @property
    def runs(self) -> Path:
        """One folder per run: its record, its logs, its report."""
        return self.home / "runs"


def load(root: Path) -> Settings:
    """The settings for the repository whose main checkout is `root`; UserError names a variable that is wrong."""
    try:
        found = Settings(root=root)
    except ValidationError as error:
        first = error.errors()[0]
        name = "REMINT_" + "_".join(str(part) for part in first["loc"]).upper()
        raise UserError(f"{name}={first.get('input')!r}: {first['msg']}; set it otherwise, or unset it") from None
    if len(os.fsencode(found.home)) > LONGEST:
        raise UserError(
            f"the path of {found.home} is too long: SQLite opens no file below it if it has more than {LONGEST} bytes; "
            "name another folder with REMINT_HOME, or move the checkout"
        )
    return found


def here() -> Settings:
    """The settings of the repository around this folder; UserError where there is none."""
    return load(repository.find(Path.cwd()).main)


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of every process that a run starts, and of the run itself.

    All telemetry is off, and Prefect, MLflow and DVC keep their state in the home. Values that the user has set for a
    tool's own behaviour (as PREFECT_API_DATABASE_CONNECTION_URL), proxies, devices and thread counts stay, but not
    what would choose a stage's code (`flows.foreign`).
    """
    prefect_home = settings.home / "prefect"
    kept = {name: value for name, value in os.environ.items() if not is_foreign(name)}
    own = Path(sys.executable).parent
    if not (own / "python").exists():  # another one, with other packages, could be found by PATH
        raise UserError(f"{sys.executable} has no `python` beside it, which is what stages call; make setup makes one")
    return {
        **{name: value for name, value in kept.items() if not name.startswith("REMINT_WEBHOOK")},
        **QUIET,
        # stages say `python`: it shall be the one that the run's environment is described by
        "PATH": os.pathsep.join([str(own), os.environ.get("PATH", os.defpath)]),
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_API_DATABASE_CONNECTION_URL": os.environ.get(
            "PREFECT_API_DATABASE_CONNECTION_URL", database_uri(prefect_home / "prefect.db", "aiosqlite")
        ),
        # Task logs go to the server; the console shows the flow's own lines, which also name every failure.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": os.environ.get("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL"),
        "MLFLOW_TRACKING_URI": settings.mlflow_uri,
        "REMINT_HOME": str(settings.home),
        "REMINT_CHECKPOINTS": settings.checkpoints,
        "DVC_SITE_CACHE_DIR": str(settings.home / "dvc"),
        "SHELL": "/bin/sh",  # by which DVC starts a stage
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",  # no locale decides how a file is read
        **_without_own_modules(),
    }


def _without_own_modules() -> dict[str, str]:
    """The variable that keeps a person's usercustomize out; without effect on one who installed everything there."""
    there = Path(pydantic.__file__).is_relative_to(site.getusersitepackages())
    return {} if there else {"PYTHONNOUSERSITE": "1"}
