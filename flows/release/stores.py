"""The places that hold a release: catalogue, bucket, MLflow's registry and git, put together once per command."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.core.params import UserError
from flows import repository
from flows.settings import Settings

if TYPE_CHECKING:
    from flows.catalogue.database import Catalogue
    from flows.storage.protocol import Bucket


@dataclass(frozen=True)
class Stores:
    """The open catalogue and bucket, and the settings that name the rest."""

    settings: Settings
    catalogue: Catalogue
    bucket: Bucket

    def mlflow(self) -> Any:
        """MLflow's client; UserError where its server does not answer."""
        from models.tracking import training_run

        client, reason = training_run.connect(self.settings.mlflow_uri)
        if client is None:
            raise UserError(f"MLflow's registry cannot be asked: {reason}")
        return client


@contextmanager
def opened(settings: Settings) -> Iterator[Stores]:
    """The stores of these settings."""
    from flows.catalogue import database
    from flows.storage import bucket

    settings.home.mkdir(parents=True, exist_ok=True)
    yield Stores(settings, database.open(settings), bucket.open(settings))


def who(settings: Settings) -> str:
    """Who gives the command, for the record: "Ada Lovelace <ada@example.org>" as git knows them, else their login."""
    name, email = (repository.git(settings.root, "config", f"user.{part}", check=False) for part in ("name", "email"))
    if name:
        return f"{name} <{email}>" if email else name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
