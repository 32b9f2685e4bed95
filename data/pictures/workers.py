"""Pictures cut by many processes of one thread each, in their order; never more of them in memory than a shard has."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

from data.core.params import UserError
from data.pictures import cut
from data.pictures.given import Given
from data.pictures.params import Set

FEW = 128  # pictures for which starting processes takes longer than they save


class Cutters:
    """The processes; with one core, or few pictures, this one."""

    def __init__(self, p: Set, workers: int, pictures: int) -> None:
        self.cut = partial(cut.sample, p)
        self.pool = None
        if workers > 1 and pictures > FEW:
            os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # they inherit it
            spawn = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(workers, spawn, initializer=_end_with_parent)

    def samples(self, pictures: Sequence[Given]) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Key and members of the pictures that can be used."""
        made = self.pool.map(self.cut, pictures, chunksize=8) if self.pool else map(self.cut, pictures)
        try:
            for picture, members in zip(pictures, made, strict=True):
                if isinstance(members, dict):
                    yield cut.key(picture.sha256), members
        except BrokenProcessPool:
            raise UserError(
                "a process that cuts pictures was killed (out of memory?); run again, or with REMINT_WORKERS=1"
            ) from None

    def close(self) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Of itself a worker would wait for ever for a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
