"""`remint approve`: let a model version pass that waits for a person."""

from pathlib import Path

import click

from flows.console import one_line_errors, print_json, say


@click.command(short_help="Let a version pass that waits for a person.")
@click.argument("model")
@click.argument("version")
@click.option("--why", required=True, metavar="TEXT", help="The reason, which stays in the journal.")
@click.option("--json", "as_json", is_flag=True, help="Print what its release is decided to be now as JSON.")
def approve(model: str, version: str, why: str, as_json: bool) -> None:
    """Approve VERSION of MODEL, which the gates let pass but for the approval that the policy asks for.

    Who (git's user.name and user.email), why and when go into the journal, bound to the version's weights. Nothing
    is released by this: promote the family afterwards.

    \b
    Example: remint approve tokenizer v3 --why "the pictures of glass are better too"

    \b
    Exit codes:
      0  approved
      2  a mistake in the input: unknown, never judged, refused, needing no approval, or approved already
    """
    with one_line_errors():
        from flows import repository, settings
        from flows.catalogue import database
        from flows.release import registry
        from flows.release.gates import record
        from models.tracking.experiments import GATE

        checkout = repository.find(Path.cwd())
        who = record.approver(checkout.top)
        chosen = settings.load(checkout.main)
        now = record.approve(database.open(chosen), model, version, who, why)
        registry.mark(chosen, {(one.decision.model, one.decision.version): {GATE: one.decision.verdict} for one in now})
        if as_json:
            rows = [
                (one.decision.model, one.decision.version, one.decision.verdict, one.decision.reason) for one in now
            ]
            print_json([dict(zip(("model", "version", "verdict", "reason"), row, strict=True)) for row in rows])
            return
        for one in now:
            print(f"{one.decision.model} v{one.decision.version} {one.decision.verdict}: {one.decision.reason}")
        if now and all(one.decision.verdict == "passed" for one in now):
            say(f"next: remint promote {now[0].decision.family} {now[0].run}")
