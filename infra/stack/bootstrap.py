"""What the stack's servers must hold before anything works: buckets, users, tables, work pools, schedules.

`remint stack bootstrap` may be repeated: it makes what is missing and leaves the rest. It alone has the keys of the
administrators of S3 and MLflow.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.core.params import UserError
from flows.catalogue import database
from flows.server import connect
from flows.settings import Settings
from infra.stack import s3
from models.tracking import server as mlflow_server
from models.tracking import training_run

WORKSPACE = "default"  # MLflow has others if it is told so
ROLES = {  # beside reading, which everybody may
    "worker": {"experiment": "EDIT"},
    "releaser": {"experiment": "MANAGE", "registered_model": "MANAGE"},
}
USERS = ("worker", "releaser", "reader")


def run(settings: Settings) -> Iterator[str]:
    """Do it, and say each thing that was done."""
    keys = (os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", ""))
    made = s3.make_buckets(s3.client(os.environ.get("AWS_ENDPOINT_URL", ""), keys))
    yield f"S3: {', '.join(made) or 'no new bucket'}"
    database.open(settings).close()
    yield "catalogue: its tables are those of this version"
    yield f"MLflow: {', '.join(_tracking_users(settings))}"
    _deploy(settings)
    yield "Prefect: work pools, stages, schedules, and what notices dead workers"


def _tracking_users(settings: Settings) -> Iterator[str]:
    """MLflow's users and what they may do; an administrator's name and password are in MLFLOW_TRACKING_*."""
    mlflow_server.check(settings.mlflow_uri)
    from mlflow.exceptions import MlflowException
    from mlflow.server import get_app_client

    client: Any = get_app_client("basic-auth", tracking_uri=settings.mlflow_uri)
    roles = {role.name: role for role in client.list_roles(WORKSPACE)}
    for name in USERS:
        variable = f"MLFLOW_{name.upper()}_PASSWORD"
        password = os.environ.get(variable)
        if not password:
            raise UserError(f"{variable} is not set: the password that MLflow's user {name} gets; see .secrets/")
        try:
            client.create_user(name, password)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise UserError(f"MLflow refuses to make user {name}: {training_run.first_line(error)}") from None
            client.update_user_password(name, password)
        if name in ROLES:
            if name not in roles:
                roles[name] = client.create_role(WORKSPACE, name, f"what a {name} may change")
            _grant(client, roles[name], name)
        yield name


def _grant(client: Any, role: Any, name: str) -> None:
    there = {(one.resource_type, one.resource_pattern): one for one in client.list_role_permissions(role.id)}
    for kind, permission in ROLES[name].items():
        if (kind, "*") not in there:
            client.add_role_permission(role.id, kind, "*", permission)
        elif there[kind, "*"].permission != permission:
            client.update_role_permission(there[kind, "*"].id, permission)
    if role.id not in {one.id for one in client.list_user_roles(name)}:
        client.assign_role(name, role.id)


def _deploy(settings: Settings) -> None:
    """Work pools, and what starts by itself: as a process, since Prefect reads its settings when it is imported."""
    assert settings.prefect_api
    connect.check(settings.prefect_api)
    command = [str(Path(sys.executable).with_name("remint")), "deploy"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise UserError((done.stderr.strip() or done.stdout.strip() or "remint deploy failed").splitlines()[-1])
