"""What every command needs: exit codes, and a user's mistake as one line instead of a traceback."""

import contextlib
import errno
import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

from data.params import UserError

OK, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130


@contextlib.contextmanager
def one_line_errors(again: str = "remint retrain") -> Iterator[None]:
    """A mistake, a full disk or Ctrl-C ends in one line and its exit code, everything else in a traceback.

    again: the command that goes on with what was interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except UserError as error:
        # a name in it may hold anything: not to become a second line, or a code for the terminal
        say("error: " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error)))
        sys.exit(MISTAKE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
            raise
        say(f"error: {error.filename or 'writing'}: {error.strerror}; free space or correct permissions, then again")
        sys.exit(MISTAKE)
    except KeyboardInterrupt:
        say(f"Interrupted. What finished is kept: `{again}` goes on from there.")
        sys.exit(INTERRUPTED)


def _interrupt(number: int, frame: Any) -> None:
    """SIGTERM ends a run as Ctrl-C does: with its processes ended and its worktree removed."""
    raise KeyboardInterrupt


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def print_json(values: Any) -> None:
    print(json.dumps(values, indent=2, default=str))
