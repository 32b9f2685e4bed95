"""Entry point of a stage: a user's mistake becomes one line and exit code 2, never a traceback.

What Python imports can depend on the environment (PYTHONSAFEPATH, PYTHONPATH, an installed copy), and what a run
records is the code of its own worktree: a stage whose modules come from anywhere else does not begin.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from data.core import portable
from data.core.params import UserError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
USER_ERROR = 2  # the exit code that says: do not retry, something must be changed first
_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the folder is read-only",
    errno.EACCES: "permission is denied",
}


class Unavailable(OSError):
    """Something outside of this machine fails and may work again later: one line, and an exit code that allows it."""


def ask_loopback_directly() -> None:
    """Let no client of this process, or of one that it starts, ask servers of this machine through a proxy.

    Some clients read NO_PROXY and some no_proxy: both get the names of both. A SOCKS proxy that Prefect's client cannot
    speak to without another package, and so would fail at before it asks anything, is said to be left out.
    """
    variables = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") and value}
    for name, address in variables.items():
        if address.lower().startswith("socks") and importlib.util.find_spec("socksio") is None:
            sys.stderr.write(f"{name} is not used: SOCKS needs the packages socksio and pysocks\n")
            del os.environ[name]
    if variables:
        named = ",".join(variables.get(name, "") for name in ("no_proxy", "NO_PROXY")).split(",")
        hosts = [host.strip().strip("[]") for host in [*named, *LOOPBACK] if host.strip()]  # httpx fails at [::1]
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*" if "*" in hosts else ",".join(dict.fromkeys(hosts))


def run(main: Callable[[], None], *, parts: bool = False) -> None:
    """Call a stage's `main` and exit; a full disk or a read-only folder counts as a user's error too.

    parts: the stage can be made in parts (`data.core.partitions`). Told to end (SIGTERM), it clears up as after an
    error.
    """
    ask_loopback_directly()
    if parts:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        _check_code()
        portable.enter()
        if not parts and os.environ.get("REMINT_PART"):
            raise UserError("this stage is not made in parts; run it without REMINT_PART")
        main()
    except UserError as error:
        _fail(str(error))
    except Unavailable as error:
        _fail(str(error), code=1)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        _fail(f"cannot write {error.filename or 'the outputs'}: {_DISK[error.errno]}; free or change it and run again")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def workers() -> int:
    """How many processes a data-parallel stage uses: REMINT_WORKERS, else one per core. Never changes the bytes."""
    text = os.environ.get("REMINT_WORKERS", "")
    if not text:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"REMINT_WORKERS must be a whole number of at least 1, not '{text}'")
    return int(text)


def _check_code() -> None:
    """UserError unless every module of `data` and `models`, the stage's own too, is of the working directory."""
    here = Path.cwd()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        package = (module.__spec__.name if name == "__main__" and module.__spec__ else name).partition(".")[0]
        if package in ("data", "models") and file:
            own = (here / package).resolve()
            if not Path(file).resolve().is_relative_to(own):
                raise UserError(
                    f"{package} was imported from {Path(file).parent}, not from {own}, where this stage runs: start it "
                    "in the checkout whose code is meant, with PYTHONSAFEPATH and PYTHONPATH unset"
                )


def _fail(message: str, code: int = USER_ERROR) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(code)
