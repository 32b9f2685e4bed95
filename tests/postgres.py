"""A real PostgreSQL server in a folder of its own, reached through a socket in it: no port, no password."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.stack.postgres import SERVES_AS, programs

FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=40")


class Server:
    """One running server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, programs()
        self._run("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C")
        self.start()

    def start(self) -> None:
        options = " ".join(f"-c {option}" for option in FAST)
        listen = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' {options}"
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self.folder / 'log'}", f"--options={listen}")

    def stop(self, mode: str = "fast") -> None:
        """End the server, and with it every connection; "fast" keeps what was committed, "immediate" nothing."""
        self._run("pg_ctl", "stop", "--wait", "--silent", f"--mode={mode}")

    def restart(self) -> None:
        self.stop()
        self.start()

    def empty_database(self) -> str:
        """The address of a database without tables: always the same one, because making another copies 7 MB."""
        import psycopg

        with psycopg.connect(f"host={self.folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return f"postgresql://postgres@/postgres?host={self.folder}"

    def _run(self, program: str, *arguments: str) -> None:
        assert self.bin is not None
        other: dict[str, Any] = {"user": SERVES_AS, "extra_groups": []} if os.geteuid() == 0 else {}
        command = [str(self.bin / program), *arguments, "-D", str(self.folder / "data")]
        # not captured by pipes: the server would keep them open
        with (self.folder / f"{program}.out").open("w+") as out:
            done = subprocess.run(command, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT, **other)
            if done.returncode:
                out.seek(0)
                raise RuntimeError(f"{program} failed: {out.read()}")


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server that is gone afterwards, and its folder with it."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: a socket's path has at most 107 bytes
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, SERVES_AS)
        running = Server(folder)
        try:
            yield running
        finally:
            running.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
