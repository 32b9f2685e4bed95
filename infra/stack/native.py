"""The stack without containers: the services of `docker-compose.yml` as processes of this machine.

    make stack          # starts everything, prints what to do next; about a minute
    make stack-down     # ends it; what it holds stays in .remint/stack

PostgreSQL and Ceph's object gateway come from Debian's packages; everything else is started by the very commands, with
the very settings, of the containers, with other addresses and folders in them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.core import locks
from data.core.params import UserError
from flows import repository, state
from flows.server.pages import TRAINING, free_port
from flows.settings import QUIET, Settings
from infra.stack import compose, postgres, processes, s3, secrets, uses
from infra.stack.access import ADMIN, USERS
from infra.stack.compose import Service
from infra.stack.places import PORTS, Places
from infra.stack.processes import Process

PACKAGES = "apt-get install postgresql ceph-mon ceph-osd ceph-mgr ceph-common radosgw"
SCALED = ("worker-cpu", "worker-nogpu")  # as many processes as wanted
HELD_ELSEWHERE = ("postgres", "s3")  # by PostgreSQL and Ceph, not by the command of their container

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stack:
    """The stack of one checkout."""

    root: Path
    state: Path  # .remint/stack
    secrets: Path

    @property
    def _processes(self) -> Path:
        return self.state / "processes.json"

    def up(self, workers: int, profile: str, say: Say) -> None:
        """Start what does not run yet, in order; UserError names what does not come up, and ends what was started."""
        needed()
        with self._alone():
            secrets.make(self.secrets)
            before = [process for process in processes.read(self._processes) if process.alive]
            running = list(before)
            try:
                self._start_all(running, workers, profile, say)
            except BaseException:
                processes.end([process for process in running if process not in before])
                if not before:
                    self._end(say)
                raise
            self._write_uses(self.places())

    def down(self, say: Say) -> None:
        """End everything; what it holds stays."""
        with self._alone():
            self._end(say)

    def _start_all(self, running: list[Process], workers: int, profile: str, say: Say) -> None:
        """Every service after those it waits for; what is started is added to `running`."""
        places, services = self.places(), compose.read(self.root, self.secrets, variables={})
        begun, started = time.monotonic(), dict[str, list[Process]]()

        def await_(name: str) -> None:
            for process in started.pop(name, []):
                self._wait(services[name], places, process)
                say(f"{process.name:14} {time.monotonic() - begun:5.0f} s")

        for service in services.values():
            if service.profiles and profile not in service.profiles:
                continue
            for before in service.after:
                await_(before)
            started[service.name] = self._up(service, places, running, workers)
        for name in list(started):
            await_(name)

    def _up(self, service: Service, places: Places, running: list[Process], workers: int) -> list[Process]:
        if service.name in HELD_ELSEWHERE:
            self._hold(service, places)
            return []
        if service.name == "bootstrap":
            self._once(service, places)
            s3.grant(s3.client(places.address("http://s3:8333"), self._keys()[ADMIN]))
            return []
        names = [f"{service.name}-{number}" for number in range(1, workers + 1)]
        started = []
        for name in names if service.name in SCALED else [service.name]:
            if name not in [process.name for process in running]:
                started.append(self._start(name, service, places))
                running.append(started[-1])
                processes.write(self._processes, running)
        return started

    def _end(self, say: Say) -> None:
        running = processes.read(self._processes)
        for kind in ("worker", ""):  # workers first: they tell the servers that they go
            processes.end([process for process in running if process.service.startswith(kind)])
        self._processes.unlink(missing_ok=True)
        s3.stop(self.root, self.state / "s3")
        postgres.stop(self.state / "postgres")
        say("the stack has ended; what it holds stays in " + str(self.state))

    def status(self) -> list[dict[str, str]]:
        """One row for each process: its name, its number, whether it lives, its address."""
        rows = []
        ports = self.ports()
        for process in processes.read(self._processes):
            address = f"http://127.0.0.1:{ports[process.service]}" if process.service in ports else ""
            state = "runs" if process.alive else f"ended, see {self._log(process.name)}"
            rows.append({"name": process.name, "pid": str(process.pid), "state": state, "address": address})
        return rows

    def _hold(self, service: Service, places: Places) -> None:
        """PostgreSQL or S3, unless it runs already."""
        port, folder = places.ports[service.name], self.state / service.name
        if service.name == "postgres":
            if not postgres.runs(folder):
                postgres.start(folder, port, service.environment)
            postgres.databases(self.root / "infra" / "stack" / "databases.sh", port, service.environment)
        elif not s3.runs(folder):
            s3.stop(self.root, folder)  # what a part of it that was killed left
            s3.start(self.root, folder, port, self._keys())

    def _keys(self) -> dict[str, tuple[str, str]]:
        values = secrets.known(self.secrets)
        return {name: (values[f"s3.{name}.key"], values[f"s3.{name}.secret"]) for name in (ADMIN, *USERS)}

    def _environment(self, service: Service, places: Places, name: str) -> dict[str, str]:
        """The service's variables, and nothing of the caller's that would lead it elsewhere."""
        foreign = ("REMINT_", "MLFLOW_", "PREFECT_", "AWS_", "PG", "DVC_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        own = {"PATH": path, "PYTHONUNBUFFERED": "1", "PREFECT_HOME": str(self.state / "work" / name / "prefect")}
        return {**inherited, **QUIET, **own, **places.environment(service, name)}

    def _start(self, name: str, service: Service, places: Places) -> Process:
        return processes.start(
            name,
            service.name,
            places.command(service, name),
            self._environment(service, places, name),
            self.state / "work" / name,
            self._log(name),
        )

    def _once(self, service: Service, places: Places) -> None:
        """A job to its end; it may be repeated."""
        folder, log = self.state / "work" / service.name, self._log(service.name)
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("w") as sink:
            done = subprocess.run(
                places.command(service, service.name),
                env=self._environment(service, places, service.name),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                check=False,
            )
        if done.returncode:
            raise UserError(f"{service.name} failed: {self._last_words(service.name)}")

    def _wait(self, service: Service, places: Places, process: Process) -> None:
        """Until the service's own health check succeeds."""
        if service.health is None:
            return
        environment = self._environment(service, places, process.name)
        until = time.monotonic() + service.health.seconds
        while process.alive and time.monotonic() < until:
            done = subprocess.run(
                places.health(service, process.name),
                env=environment,
                cwd=self.state / "work" / process.name,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return
            time.sleep(1.0)  # each check is a program of its own
        why = f"is not well after {service.health.seconds:g} s" if process.alive else "has ended"
        raise UserError(f"{process.name} {why}: {self._last_words(process.name)}")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else starts or ends it meanwhile."""
        self.state.mkdir(parents=True, exist_ok=True)
        with locks.held(self.state / "lock"):
            yield

    def ports(self) -> dict[str, int]:
        """The ports of the first start, ever after: databases and clients remember them."""
        path = self.state / "ports.json"
        if not path.exists():
            state.write(path, {name: free_port(wanted) for name, wanted in PORTS.items()})
        step = f"write the ports of the first start into it (the logs beside it name them), or rm '{path}' for new ones"
        return state.read(path, lambda values: {name: int(values[name]) for name in PORTS}, step) or {}

    @property
    def is_here(self) -> bool:
        """Whether it was ever started on this machine without containers."""
        return (self.state / "ports.json").exists()

    def places(self) -> Places:
        return Places(self.root, self.state, self.ports(), self.origin())

    def origin(self) -> str:
        """Where workers fetch the runs' commits: REMINT_ORIGIN, else the checkout's own origin, else the checkout."""
        named = os.environ.get("REMINT_ORIGIN")
        if named or "origin" not in repository.git(self.root, "remote").split():
            return named or str(self.root / ".git")
        return repository.git(self.root, "remote", "get-url", "origin").strip()

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def _last_words(self, name: str) -> str:
        said = self._log(name).read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        return f"{said[-1]} (all of it: {self._log(name)})"

    def _write_uses(self, places: Places) -> None:
        """A file of variables to source for each kind of user."""
        for user in uses.USERS:
            secrets.write(self.use(user), uses.text(uses.variables(self.root, self.secrets, user, places.address)))

    def use(self, user: str) -> Path:
        return self.state / f"{user}.env"


def of(settings: Settings) -> Stack:
    """The stack of the main checkout."""
    return Stack(settings.root, settings.home / "stack", settings.root / compose.SECRETS)


def needed() -> None:
    """UserError if a server is not installed."""
    missing = [
        name for name, there in (("PostgreSQL", postgres.programs()), ("radosgw", shutil.which("radosgw"))) if not there
    ]
    if missing:
        raise UserError(f"the stack needs {' and '.join(missing)}; install: {PACKAGES} (or use docker compose)")


def profile() -> str:
    """The profile of docker-compose.yml for this machine."""
    return "gpu" if Path("/dev/nvidia0").exists() else "nogpu"


def how_to_use(stack: Stack) -> str:
    """What a person does with a stack that runs."""
    ports = stack.ports()
    lines = [
        f"MLflow   http://127.0.0.1:{ports['mlflow']}{TRAINING}",
        "         user admin, password: mlflow.admin in .secrets/values.json",
        f"Prefect  http://127.0.0.1:{ports['prefect']}   log in as remint:PASSWORD, prefect.server in the same file",
        f"S3       http://127.0.0.1:{ports['s3']}   keys in .secrets/*.env",
        "",
        *(f"set -a; . {stack.use(user)}; set +a   # {what}" for user, what in uses.USERS.items()),
        "",
        "remint retrain, in a shell that read the first file, runs the stages on these workers; logs are in",
        f"{stack.state / 'logs'}; make stack-down ends everything.",
    ]
    return "\n".join(lines)
