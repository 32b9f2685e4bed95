"""`remint gates`: what the gates said about a model version, with every number."""

import sys
from typing import TYPE_CHECKING, Any

import click

from flows.console import FAILED, OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from flows.release.gates.record import Approval, Stored

HEAD = ("rule", "candidate", "production", "limit", "difference [95 %]", "samples", "")


@click.command(short_help="Show why a version was let through or refused.")
@click.argument("model")
@click.argument("version")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON, with every number in full.")
def gates(model: str, version: str, as_json: bool) -> None:
    """Show the last decision about VERSION of MODEL: every rule with both numbers, its interval and its verdict.

    VERSION is a number (3 or v3), "production" or "previous".

    \b
    Example: remint gates tokenizer v3

    \b
    Exit codes:
      0  it passed
      1  it was refused, or waits for an approval
      2  a mistake in the input (unknown model or version, never judged)
    """
    with one_line_errors():
        from flows import settings
        from flows.catalogue import database
        from flows.release.gates import record

        catalogue = database.open(settings.here())
        with catalogue.read() as session:
            judged, given = record.show(session, model, version)
        if as_json:
            print_json(_json(judged, given))
        else:
            print(_text(judged))
            say(_verdict(judged, given))
        sys.exit(OK if judged.decision.verdict == "passed" else FAILED)


def _text(judged: "Stored") -> str:
    from flows.release.gates.decision import cell, interval
    from flows.show.columns import columns

    rows = [
        (
            rule.name,
            cell(rule.candidate),
            cell(rule.production),
            cell(rule.limit),
            interval(rule.difference, rule.low, rule.high),
            cell(rule.samples),
            "passed" if rule.passed else "FAILED",
        )
        for rule in judged.decision.rules
    ]
    return columns([HEAD, *rows], right=(1, 2, 3, 5), notes=[rule.note for rule in judged.decision.rules])


def _verdict(judged: "Stored", given: "Approval | None") -> str:
    from flows.show import table
    from flows.show.columns import paragraph

    one = judged.decision
    against = f" against v{one.replaces}" if one.replaces is not None else ""
    lines = [paragraph(f"{one.model} v{one.version} {one.verdict}{against}: {one.reason}")]
    lines.append(f"judged in run {judged.run} on {judged.at:%Y-%m-%d %H:%M} UTC, weights {one.weights[:12]}")
    lines += table.next_steps([one], judged.run)
    if given is not None:
        lines.append(f"approved by {given.who} on {given.at:%Y-%m-%d %H:%M} UTC: {given.why}")
    return "\n".join(lines)


def _json(judged: "Stored", given: "Approval | None") -> dict[str, Any]:
    from dataclasses import asdict

    one = judged.decision
    return {
        "model": one.model,
        "version": one.version,
        "family": one.family,
        "weights": one.weights,
        "verdict": one.verdict,
        "reason": one.reason,
        "against": one.replaces,
        "run": judged.run,
        "judged": judged.at.isoformat(),
        "approval": None if given is None else asdict(given) | {"at": given.at.isoformat()},
        "rules": [asdict(rule) for rule in one.rules],
    }
