"""What every command needs: exit codes, and a user's mistake as one line instead of a traceback."""

import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from data.core.params import UserError

OK, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130


@contextlib.contextmanager
def one_line_errors(again: str = "remint retrain") -> Iterator[None]:
    """A mistake, a full disk or Ctrl-C ends in one line and its exit code, everything else in a traceback.

    again: the command that goes on with what was interrupted.
    """
    _interruptible()
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


def ends() -> list[signal.Signals]:
    """The signals that end a command: Ctrl-C, SIGTERM, and a terminal that is closed, unless under nohup."""
    closed = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *closed]


def _interruptible() -> None:
    """Let what ends a command end it as Ctrl-C does: with its processes ended and its worktree removed."""
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def interrupt(number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            signal.signal(number, signal.SIG_IGN)  # the terminal and its shell both send it
            for terminal in terminals:  # writing to one that is gone would be an error in the midst of the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), terminal)
        raise KeyboardInterrupt

    for number in ends():
        if number != signal.SIGINT:  # Python's own is the same, and may be ignored as in a script's background
            signal.signal(number, interrupt)


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it any more
        print(text, file=sys.stderr, flush=True)


def print_json(values: Any) -> None:
    print(json.dumps(values, indent=2, default=str))
