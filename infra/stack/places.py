"""Where the services of `docker-compose.yml` are without containers: ports of 127.0.0.1, folders of `.remint`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.stack.compose import Service

PORTS = {"postgres": 5432, "s3": 8333, "mlflow": 5000, "prefect": 4200}  # that the services listen on inside


@dataclass(frozen=True)
class Places:
    """What stands for the names that the settings use."""

    root: Path  # the checkout
    state: Path  # everything that the stack keeps
    ports: Mapping[str, int]  # service -> its port on 127.0.0.1
    origin: str  # of the workers' clones: what a container has at /origin

    def command(self, service: Service, process: str) -> list[str]:
        return [self._argument(word, service, process) for word in service.command]

    def health(self, service: Service, process: str) -> list[str]:
        assert service.health is not None
        return [self._argument(word, service, process) for word in service.health.command]

    def environment(self, service: Service, process: str) -> dict[str, str]:
        made = {}
        for key, value in service.environment.items():
            if key.endswith("HOST") and value in PORTS:
                made[key] = "127.0.0.1"
            elif key.endswith("PORT"):
                made[key] = self._port(value)
            else:
                made[key] = self._argument(value, service, process)
        return made

    def address(self, text: str) -> str:
        """The same text with the addresses that hold here: http://mlflow:5000 -> http://127.0.0.1:5000."""
        here = {(host, inside): self.ports[name] for name, inside in PORTS.items() for host in (name, "127.0.0.1")}

        def replaced(found: re.Match[str]) -> str:
            port = here.get((found[1], int(found[2])))
            return f"127.0.0.1:{port}" if port else found[0]

        return re.sub(r"\b([\w.-]+):(\d+)\b", replaced, text)

    def _argument(self, text: str, service: Service, process: str) -> str:
        if service.name in PORTS and text == str(PORTS[service.name]):
            return self._port(text)
        text = self.address(text.replace("0.0.0.0", "127.0.0.1"))
        folders = self._folders(service, process)
        one = "|".join(map(re.escape, folders))  # in one pass: what stands for one may look like another
        return re.sub(rf"(?<![\w/.-])({one})(?=[/:]|$)", lambda found: str(folders[found[0]]), text)

    def _port(self, inside: str) -> str:
        return next((str(self.ports[name]) for name, port in PORTS.items() if str(port) == inside), inside)

    def _folders(self, service: Service, process: str) -> dict[str, Path | str]:
        """Path in the container -> path here, the longest first."""
        mounts: dict[str, Path | str] = {
            inside: self.root / outside if outside.startswith(".") else self.state / outside
            for inside, outside in service.mounts.items()
        }
        every = {"/srv/remint": self.root, "/work": self.state / "work" / process, **mounts, "/origin": self.origin}
        return dict(sorted(every.items(), key=lambda pair: -len(pair[0])))
