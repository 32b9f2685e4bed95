"""Code of a commit, kept from the secrets of who runs it.

    subprocess.Popen(confined.command(["dvc", "repro", ...]), env=confined.variables(os.environ))

A stage is given no login that it has no use for. Those of its worker are still in reach of every process of the same
user, through `/proc/PID/environ`, `/proc/PID/mem` and ptrace; but a process that has put itself into a Landlock domain
reaches only those of the domain: itself and what it starts, not its worker, not the machine's other workers, not a
container's first process. Files stay as they are: what the user may read, the stage may.

Run by its path, before any package of a worktree can be found, this needs the standard library alone.
"""

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Mapping, Sequence

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, the same on every processor
VERSION = 1  # asks CREATE_RULESET which version of Landlock the kernel has
BENEATH = 1  # a rule about all below a folder
REFER = 1 << 13  # to rename and link from folder to folder: what every domain takes away unless it is given back
NEEDS = 2  # the version that can give it back: Linux 5.19
NO_NEW_PRIVILEGES, DROP_CAPABILITY = 38, 24  # prctl
CAPABILITIES = (19, 21, 38)  # SYS_PTRACE, SYS_ADMIN, PERFMON: with them root reads every process nevertheless
SECRET = re.compile(
    r".*PASSW(?:OR)?D.*|(?:.*_)?(?:SECRETS?|TOKEN|AUTH|CREDENTIALS?|KEYS?)(?:_.*)?"
    r"|GIT_CONFIG_(?:COUNT|PARAMETERS|VALUE_\d+)"  # a login for git's origin; a COUNT without its KEYs is an error
    r"|REMINT_(?:CATALOGUE|WEBHOOK)|PREFECT_(?:API|SERVER)_DATABASE_CONNECTION_URL"  # addresses with a password
)

KEPT = ("REMINT_CHECKPOINTS", "REMINT_ARRIVED", "REMINT_PICTURES")  # where a stage has files

libc = ctypes.CDLL(None, use_errno=True)


def command(words: Sequence[str]) -> list[str]:
    """The same command, confined."""
    return [sys.executable, "-I", __file__, *words]


def variables(every: Mapping[str, str]) -> dict[str, str]:
    """A stage's variables: without secrets, but for those of MLflow and S3 where it tracks to or has files there."""
    tracked = every.get("MLFLOW_TRACKING_URI", "").startswith("http")
    keeps = any(every.get(name, "").startswith("s3:") for name in KEPT)
    needed = (*(["MLFLOW_TRACKING_"] if tracked else []), *(["AWS_"] if keeps else []))
    return {name: value for name, value in every.items() if name.startswith(needed) or not SECRET.fullmatch(name)}


def possible() -> bool:
    """Whether this kernel, or what guards the container, lets a process confine itself."""
    return int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION)) >= NEEDS


def confine() -> None:
    """Put this process, and all that it will start, into a domain of its own; OSError where that is not possible."""
    for capability in CAPABILITIES:
        libc.prctl(DROP_CAPABILITY, capability, 0, 0, 0)  # refused to all but root, who alone has them
    handled = ctypes.c_uint64(REFER)
    ruleset = _call(CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(8), 0)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    rule = REFER.to_bytes(8, sys.byteorder) + root.to_bytes(4, sys.byteorder)
    _call(ADD_RULE, ruleset, BENEATH, rule, 0)
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    _call(RESTRICT_SELF, ruleset, 0)
    os.close(root)
    os.close(ruleset)


def _call(*arguments: object) -> int:
    done = int(libc.syscall(*arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # an older kernel: `remint worker` says so when it starts
        confine()
    os.execvp(sys.argv[1], sys.argv[1:])
