"""`remint`: the command line. `remint --help` lists the commands, `remint COMMAND --help` explains one."""

import importlib
import os
import sys

import click

from data.core import entry

COMMANDS = (  # each in a module of flows.commands of its name: only the one that is called is imported
    *("retrain", "data", "promote", "rollback", "history", "status", "cost", "settle", "gates", "judge", "approve"),
    *("reproduce", "lineage", "diff", "doctor", "gc", "pull", "deploy", "schedule", "watch", "stack", "worker", "ui"),
)


class Commands(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"flows.commands.{name}"), name)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="remint", message="%(prog)s %(version)s")
def main() -> None:
    """Retrain, evaluate, register and release the models of this repository; prove where they come from."""
    _read_utf8()
    entry.ask_loopback_directly()


def _read_utf8() -> None:
    """Start again where the locale would read files and names in another encoding than they are written in."""
    if sys.getfilesystemencoding() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


if __name__ == "__main__":
    main()
