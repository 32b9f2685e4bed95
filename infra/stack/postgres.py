"""PostgreSQL from Debian's packages, on a port of 127.0.0.1, in a folder that stays."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from data.core.params import UserError

SERVES_AS = "postgres"  # the server refuses to run as root; Debian's package makes this user


def programs() -> Path | None:
    """The folder of initdb and postgres, None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    there = shutil.which("postgres")
    return Path(there).resolve().parent if there else None


def start(folder: Path, port: int, environment: Mapping[str, str]) -> None:
    """Make the cluster if it is new, start it, and make the databases of the stack and their users."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data" / "PG_VERSION").exists():
        _initialise(folder, environment)
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c max_connections=200"
    _run(folder, "pg_ctl", "start", "--wait", "--silent", f"--log={folder / 'log'}", f"--options={options}")


def databases(script: Path, port: int, environment: Mapping[str, str]) -> None:
    """Run the script that PostgreSQL's image runs at its first start."""
    reach = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGPASSWORD": environment["POSTGRES_PASSWORD"]}
    done = subprocess.run(
        [str(script)], env={**os.environ, **environment, **reach}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"PostgreSQL refuses to make the databases: {done.stderr.strip().splitlines()[-1]}")


def runs(folder: Path) -> bool:
    """Whether the server lives: the number that it wrote down is that of a process of PostgreSQL."""
    try:
        number = (folder / "data" / "postmaster.pid").read_text().splitlines()[0]
        return psutil.Process(int(number)).name().startswith("postgres")
    except (OSError, IndexError, ValueError, psutil.Error):
        return False


def stop(folder: Path) -> None:
    if runs(folder):
        _run(folder, "pg_ctl", "stop", "--wait", "--silent", "--mode=fast")


def _initialise(folder: Path, environment: Mapping[str, str]) -> None:
    password = folder / "password"
    password.touch(0o600)
    password.write_text(environment["POSTGRES_PASSWORD"])
    for path in (folder, password):
        if os.geteuid() == 0:
            shutil.chown(path, SERVES_AS)
    try:
        options = shlex.split(environment["POSTGRES_INITDB_ARGS"])
        who = f"--username={environment['POSTGRES_USER']}"
        _run(folder, "initdb", *options, "--auth-local=scram-sha-256", who, f"--pwfile={password}")
    finally:
        password.unlink()


def _run(folder: Path, program: str, *arguments: str) -> None:
    where = programs()
    assert where is not None
    other: dict[str, Any] = {"user": SERVES_AS, "extra_groups": []} if os.geteuid() == 0 else {}
    command = [str(where / program), *arguments, "-D", str(folder / "data")]
    # not captured by pipes: the server would keep them open
    with (folder / f"{program}.out").open("w+") as out:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False, **other
        )
        if done.returncode:
            out.seek(0)
            words = out.read().strip().splitlines() or [f"exit code {done.returncode}"]
            raise UserError(f"PostgreSQL's {program} failed: {words[-1]}; see its log, {folder / 'log'}")
