"""Random passwords for the stack: one file of variables for each that runs or uses something of it, mode 600.

    make stack-secrets              # python3 -m infra.stack.secrets: needs nothing installed
    make stack-secrets ARGS=DIR     # elsewhere than in .secrets/

Nobody is given another's: `worker.env` cannot write to production, `reader.env` can only read it. Run again, it keeps
what is there and adds what is missing; to change a password see docs/stack.md.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.stack import access

FOLDER = Path(".secrets")
VALUES = "values.json"  # every random value by its name; the other files are made from it
DATABASES = ("mlflow", "prefect", "catalogue")  # of PostgreSQL, each with a user of its name
TRACKING = ("worker", "releaser", "reader")  # users of MLflow beside its administrator
NAMES = (
    *(f"database.{name}" for name in ("postgres", *DATABASES)),
    *(f"s3.{name}.{part}" for name in (access.ADMIN, *access.USERS) for part in ("key", "secret")),
    *(f"mlflow.{name}" for name in (access.ADMIN, *TRACKING)),
    "mlflow.session",
    "prefect.server",
)


def make(folder: Path) -> list[Path]:
    """Write every file of secrets, with the values that are there and new ones for the others."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    kept = folder / VALUES
    values = known(folder)
    values |= {name: secrets.token_hex(10 if name.endswith(".key") else 24) for name in NAMES if name not in values}
    write(kept, json.dumps(values, indent=1) + "\n")
    made = []
    for name, variables in files(values).items():
        path = folder / f"{name}.env"
        write(path, "".join(f"{key}={value}\n" for key, value in variables.items()))
        made.append(path)
    return made


def known(folder: Path) -> dict[str, str]:
    """The values that are there; ends with one line where the file is damaged: new ones would open nothing there is."""
    kept = folder / VALUES
    try:
        return {str(name): str(value) for name, value in json.loads(kept.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, RecursionError):
        sys.exit(f"error: {kept} is damaged, and it holds every password of the stack; bring it back from its backup")


def files(values: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What each service or user must know, by the name of its file."""

    def s3(user: str) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": values[f"s3.{user}.key"], "AWS_SECRET_ACCESS_KEY": values[f"s3.{user}.secret"]}

    def tracking(user: str) -> dict[str, str]:
        return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": values[f"mlflow.{user}"]}

    login = f"remint:{values['prefect.server']}"
    prefect = {"PREFECT_API_AUTH_STRING": login}
    catalogue = {"REMINT_CATALOGUE": f"postgresql://catalogue:{values['database.catalogue']}@postgres:5432/catalogue"}
    identities = access.identities(
        {name: (values[f"s3.{name}.key"], values[f"s3.{name}.secret"]) for name in (access.ADMIN, *access.USERS)}
    )
    return {
        "postgres": {
            "POSTGRES_PASSWORD": values["database.postgres"],
            **{f"{name.upper()}_PASSWORD": values[f"database.{name}"] for name in DATABASES},
        },
        "s3": {"S3_IDENTITIES": base64.b64encode(json.dumps(identities).encode()).decode()},
        "mlflow": {
            "PGPASSWORD": values["database.mlflow"],
            "MLFLOW_AUTH_ADMIN_PASSWORD": values["mlflow.admin"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": values["mlflow.session"],
            **s3("mlflow"),
            **tracking(access.ADMIN),  # for `mlflow gc`
        },
        "prefect": {
            "PREFECT_SERVER_DATABASE_PASSWORD": values["database.prefect"],
            "PREFECT_SERVER_API_AUTH_STRING": login,
            **prefect,
        },
        "bootstrap": {
            **s3(access.ADMIN),
            **tracking(access.ADMIN),
            **{f"MLFLOW_{name.upper()}_PASSWORD": values[f"mlflow.{name}"] for name in TRACKING},
            **prefect,
            **catalogue,
        },
        "worker": {**s3("worker"), **tracking("worker"), **prefect},
        "releaser": {**s3("releaser"), **tracking("releaser"), **prefect, **catalogue},
        "reader": {**s3("reader"), **tracking("reader")},
        "photographer": s3("photographer"),
    }


def write(path: Path, text: str) -> None:
    """The whole file or the old one, and never readable by others, not even for a moment."""
    unfinished = path.with_name(f".{path.name}")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    print(f"{len(make(target))} files in {target}/, mode 600: git ignores them, back them up with the data")
