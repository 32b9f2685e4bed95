"""A reproduction whose stages run on workers: what it needs beforehand, what of it is compared here, how it ends.

    with workers.ready(job, say) as (job, dispatcher):
        outcome = remake.run(job, progress, dispatcher)
        workers.bring_compared(job, dispatcher)
        ...
        workers.forget(job, dispatcher)

What a killed reproduction finished are attempts in the bucket of orders that succeeded, under its own name; its
checkpoints lie below that name at REMINT_CHECKPOINTS. The next one of the same commit goes on from both, on whichever
machine it is started. One at a time has the claim to it. Outputs that are not the original's stay in the remote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from data.core import checkpoint_store
from data.core.params import UserError
from flows.pipeline import outputs
from flows.pipeline.plan import overlap
from flows.pipeline.store import as_recorded
from flows.release import origin
from flows.reproduce.remake import Remake
from flows.storage.retry import retry
from flows.workers import claim, flowruns, pools
from flows.workers.dispatch import Dispatcher


@contextmanager
def ready(job: Remake, say: Callable[[str], None]) -> Iterator[tuple[Remake, Dispatcher]]:
    """Offer the job's commit to the workers while it lasts; UserError if nobody serves a pool, or another has begun."""
    pools.check_for(job)

    try:
        with claim.held(job, say) as claimed:
            flowruns.crash(claimed.dead)
            try:
                origin.offer(job.settings.root, job.run.id, job.run.commit)
                held = replace(job, check=claimed.check)
                yield held, Dispatcher(held)
            finally:
                origin.withdraw(job.settings.root, job.run.id)
    except claim.UnderWay as error:
        raise UserError(f"{job.targets[0].title} is being reproduced on {error.host}; wait for it to end") from None


def bring_compared(job: Remake, dispatcher: Dispatcher) -> None:
    """Put into the worktree the models, and the weights in every output that is not the original's."""
    models = [target.model.path.as_posix() for target in job.targets]
    differing: list[str] = []
    for name, entry in dispatcher.entries.items():
        then, now = as_recorded(job.lock[name]).outs, as_recorded(entry).outs
        differing += [out for out in now if then.get(out) != now[out]]

    def wanted(path: str) -> bool:
        weights = path.endswith(".safetensors") and any(overlap(path, out) for out in differing)
        return weights or any(overlap(path, model) for model in models)

    retry(outputs.bring, job.store, list(dispatcher.entries.values()), wanted)


def forget(job: Remake, dispatcher: Dispatcher) -> None:
    """Remove what a reproduction needed to go on, which is at its end; what cannot be removed now, gc finds."""
    dispatcher.forget()
    if job.again:
        with suppress(UserError, OSError):
            checkpoint_store.discard(job.settings.checkpoints, job.again.proof)
