"""`remint judge`: a recorded run judged again by the present policy."""

import sys
from typing import TYPE_CHECKING, Any

import click

from flows.console import FAILED, OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from flows.release.outcome import Release


@click.command(short_help="Judge a recorded run by the present policy.")
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the decisions as JSON on standard output.")
def judge(run: str | None, as_json: bool) -> None:
    """Let the gates decide again about the models of RUN, the newest recorded one without a name.

    The policy is that of the commit which is checked out, so that a changed one is committed first; production is
    what it is now. The decisions replace the older ones and are noted in the journal. Nothing is trained or released.

    \b
    Example: remint judge 20261121T012434Z-1a2b3c4

    \b
    Exit codes:
      0  every model passed, or is in production already
      1  one was refused, or waits for approval
      2  a mistake (unknown run, a policy that cannot be read, outputs that are not here)
    """
    with one_line_errors("remint judge"):
        from flows import settings
        from flows.release import of_run, stores

        chosen = settings.here()
        with stores.opened(chosen) as places, of_run.judged_again(places, run) as (ran, made):
            of_run.note_judgement(places, ran, made, stores.who(chosen))
        if as_json:
            print_json({"run": ran.id, "models": [_json(one) for one in made.decisions]})
        else:
            _print(ran.id, made)
        sys.exit(OK if all(one.verdict in ("passed", "unchanged") for one in made.decisions) else FAILED)


def _json(one: Any) -> dict[str, Any]:
    return {"model": one.model, "version": one.version, "verdict": one.verdict, "reason": one.reason}


def _print(run: str, made: "Release") -> None:
    from flows.show import table

    for one in made.decisions:
        print(f"{one.model} v{one.version} {one.verdict}: {one.reason}")
    for family in dict.fromkeys(one.family for one in made.decisions):
        own = [one for one in made.decisions if one.family == family]
        if all(one.verdict in ("passed", "unchanged") for one in own) and any(one.promoted for one in own):
            say(f"next: remint promote {family} {run}")
    for line in table.next_steps(made.decisions, run):
        say(line)
