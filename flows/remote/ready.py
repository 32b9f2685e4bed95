"""What a run on workers needs, checked before anything runs: a Prefect server, and workers in every pool."""

from __future__ import annotations

from data.core.params import UserError
from flows.remote import orders
from flows.retrain.job import Job
from flows.server import connect


def check(job: Job) -> None:
    """UserError if the stages that are to run cannot run on workers now."""
    todo = [stage for stage in job.stages if job.plan.action(stage.name) != "current"]
    if not todo:
        return
    api = job.settings.prefect_api
    if not api:
        raise UserError(
            "REMINT_STAGES=workers needs REMINT_PREFECT_API, the address of the Prefect server that the workers ask"
        )
    connect.check(api)
    for stage in todo:
        if not stage.deps or not stage.outs:
            raise UserError(f"dvc.yaml: stage '{stage.name}' has no deps or no outs, so its result cannot be shared")
    orders.use(api)
    from flows.remote import pools  # not before: Prefect reads the environment when it is imported

    for pool in sorted({stage.meta.pool for stage in todo}):
        pools.check(pool)
