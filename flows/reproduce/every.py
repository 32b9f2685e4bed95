"""The Prefect flow behind `remint reproduce --all`: every model in production again, from its tag.

For a schedule, deploy `flows.reproduce.every.reproduce_production`; it fails when one comes out different.
Import it only when it is to run: Prefect reads its settings from the environment at that moment.
"""

from __future__ import annotations

import os
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from data.core.params import UserError
from flows import repository
from flows import settings as settings_
from flows.reproduce import report, target
from flows.reproduce.compare import DIFFERENT, FAILED, Tolerance, worst
from flows.reproduce.remake import Source
from flows.reproduce.run import Reproduction, groups, reproduce
from flows.retrain import progress


class NotReproduced(Exception):
    """Some model in production did not come out the same, or could not be made again; the message says which."""


@flow(name="reproduce-production", persist_result=False, validate_parameters=False)
def reproduce_production(
    root: str = ".",
    source: Source = "scratch",
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - a frozen value
    done: list[Reproduction] | None = None,
    refused: list[str] | None = None,
) -> State:
    """Reproduce every model in production, those of one run together; one that cannot be holds up no other.

    `done` and `refused` (why a run's models could not be made again here) are filled as they end.
    """
    settings = settings_.load(repository.find(Path(root)).main)
    if "PREFECT_API_URL" in os.environ:  # the server of this very flow
        settings = settings.model_copy(update={"prefect_api": os.environ["PREFECT_API_URL"]})
    targets = target.in_production(settings)
    if not targets:
        raise UserError(f"nothing is in production in {settings.root}; git fetch --tags, or remint retrain")
    done, refused = [] if done is None else done, [] if refused is None else refused
    with progress.console() as shown:
        for group in groups(targets, source):
            try:
                done.append(reproduce(settings, group, source, tolerance, shown))
            except UserError as error:
                refused.append(str(error))
    said = "\n".join([*(report.sentence(model, one.proof) for one in done for model in one.proof.models), *refused])
    if refused or worst([one.proof.verdict for one in done]) in (DIFFERENT, FAILED):
        raise NotReproduced(said)
    return Completed(message=said)
