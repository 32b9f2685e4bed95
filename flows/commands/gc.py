"""`remint gc`: show or remove what no tag, release or run-cache entry reaches."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from flows.console import FAILED, OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from flows.garbage.collect import Collection
    from flows.garbage.place import Garbage

HOUR = 3600.0


@click.command(short_help="Remove what no tag, release or cache entry reaches.")
@click.option("--plan/--apply", "plan_only", default=True, help="Only show what would go (the default), or remove it.")
@click.option(
    "--older-than",
    metavar="HOURS",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    help="Leave alone what was written since: it may be in the making.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the collection as JSON on standard output.")
def gc(plan_only: bool, older_than: float, as_json: bool) -> None:
    """Remove what nothing reaches: worktrees of killed runs, checkpoints nobody went on from, unfinished files,
    attempts of dead runs, ended reproductions, deleted MLflow runs, bundles without a release, uploads to S3 that were
    broken off, objects of DVC's cache without a reference.

    What a git tag, branch or checkout, a release or a run-cache entry reaches stays, and so does everything of a
    working run. It may be interrupted at any time. A bundle goes only when it was seen without a release before:
    the first --apply notes it, a later one removes it.

    \b
    Examples:
      remint gc                          what would go, why, and what that frees
      remint gc --apply                  remove it
      remint gc --apply --older-than 168 only what is a week old
    \b
    Exit codes:
      0  done; parts that had to be left alone are named
      1  something could not be removed
      2  a mistake in the input
    """
    with one_line_errors():
        from flows import settings
        from flows.garbage import collect

        chosen = settings.here()
        if plan_only:
            collection = collect.plan(chosen, older_than * HOUR)
        else:
            told = (lambda item: None) if as_json else _tell
            collection = collect.apply(chosen, older_than * HOUR, told)
        if as_json:
            print_json(_to_json(collection, plan_only))
        else:
            _print(collection, plan_only)
        sys.exit(FAILED if collection.failed else OK)


def _tell(item: "Garbage") -> None:
    print(f"removed {item.kind} {item.what} ({_size(item.bytes)}): {item.why}", flush=True)


def _print(collection: "Collection", plan_only: bool) -> None:
    if plan_only:
        for item in collection.found:
            print(f"{item.kind:<13}{_size(item.bytes):>10}  {item.what}  ({item.why})")
    for kind, why in collection.left_alone.items():
        say(f"left alone: every {kind}: {why}")
    for what, why in collection.failed.items():
        say(f"still there: {what}: {why}")
    count = len(collection.found) - len(collection.failed)
    if not collection.found:
        print("Nothing to collect.")
    elif plan_only:
        print(f"{count} to remove, {_size(collection.bytes)} to free: remint gc --apply")
    else:
        freed = sum(item.bytes for item in collection.found if item.what not in collection.failed)
        print(f"{count} removed, {_size(freed)} freed.")


def _to_json(collection: "Collection", plan_only: bool) -> dict:
    return {
        "applied": not plan_only,
        "found": [asdict(item) for item in collection.found],
        "bytes": collection.bytes,
        "left_alone": collection.left_alone,
        "failed": collection.failed,
    }


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.1f} GB"
