"""A real S3 server for tests and benches: Ceph's object gateway, which takes 13 s to start.

with s3.server(folder) as environment:    # AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...
    ...
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "infra" / "stack" / "s3.sh"
TRIES = 3  # a port may be taken meanwhile, and a slow machine's daemons may miss each other


def installed() -> bool:
    return shutil.which("radosgw") is not None


@contextlib.contextmanager
def server(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a server that keeps everything in `folder`; RuntimeError if it does not start."""
    for number in range(TRIES):
        place = folder / f"try-{number}"
        place.mkdir(parents=True)
        command = [str(SCRIPT), "start", str(place), str(_free_port())]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if done.returncode == 0:
                yield dict(word.split("=", 1) for word in done.stdout.split())
                return
        finally:
            subprocess.run([SCRIPT, "stop", place], check=True)
    raise RuntimeError(f"the S3 server did not start: {(place / 'start.log').read_text()}")


def _free_port() -> int:
    """A free port whose thousandth successor is free as well: s3.sh takes both."""
    while True:
        with contextlib.suppress(OSError, OverflowError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", one.getsockname()[1] + 1000))
            return int(one.getsockname()[1])
