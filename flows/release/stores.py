"""The places that hold a release, opened once per command, and what is found where one disagrees with another."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.core.params import UserError
from flows import repository
from flows.settings import Settings
from models.tracking import training_run

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
        client, reason = training_run.connect(self.settings.mlflow_uri)
        if client is None:
            raise UserError(f"MLflow's registry cannot be asked: {reason}")
        return client


@dataclass(frozen=True)
class Finding:
    """What is wrong somewhere: `place` says this of `subject`, and should say that."""

    place: str  # "MLflow", "git", "catalogue", "bucket", ...
    subject: str  # "images #3", "tokenizer@production"
    says: str
    should: str
    repair: Callable[[], object] | None = None  # None: a person must decide; `advice` says what
    advice: str = ""

    def __str__(self) -> str:
        advice = f" ({self.advice})" if self.advice else ""
        should = f", should be {self.should}" if self.should else ""
        return f"{self.place}: {self.subject} is {self.says}{should}{advice}"


@contextmanager
def opened(settings: Settings) -> Iterator[Stores]:
    """The stores of these settings."""
    from flows.catalogue import database  # not above: a run with nothing to do opens none, and loads no SQLAlchemy
    from flows.storage import bucket

    settings.home.mkdir(parents=True, exist_ok=True)
    yield Stores(settings, database.open(settings), bucket.at(settings.production))


def who(settings: Settings) -> str:
    """Who gives the command, for the record: "Ada Lovelace <ada@example.org>" as git knows them, else their login."""
    name, email = (repository.git(settings.root, "config", f"user.{part}", check=False) for part in ("name", "email"))
    if name:
        return f"{name} <{email}>" if email else name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
