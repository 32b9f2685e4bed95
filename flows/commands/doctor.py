"""`remint doctor`: find what was interrupted and what disagrees, and repair it."""

import sys

import click

from data.core.params import UserError
from flows.console import FAILED, OK, one_line_errors, print_json


@click.command(short_help="Find and repair what was interrupted or disagrees.")
@click.option("--repair", is_flag=True, help="Complete or undo what was interrupted; make every place follow the log.")
@click.option("--deep", is_flag=True, help="Read every byte of the releases' bundles and hold it against its digest.")
@click.option("--accept", "accepted", metavar="FAMILY@N", multiple=True, help="First note a release made elsewhere.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on standard output.")
def doctor(repair: bool, deep: bool, accepted: tuple[str, ...], as_json: bool) -> None:
    """Compare the production bucket, the catalogue, MLflow's aliases and git's tags; find what was interrupted.

    The bucket's log of releases is right as far as the catalogue's journal agrees; everything else follows it. A
    release that the journal has otherwise is followed by nothing, one of which it never heard once you --accept it.
    Without --repair nothing is changed. Without --deep files are held against their sizes alone.

    \b
    Exit codes:
      0    nothing is wrong, or all of it was repaired
      1    something is wrong and was left
      2    a mistake (no repository, a bucket or database that does not answer)
    """
    with one_line_errors():
        from flows import settings
        from flows.doctor import checks
        from flows.release import stores

        chosen = settings.here()
        with stores.opened(chosen) as opened:
            for named in accepted:
                checks.accept(opened, *release(named))
            results = []
            for result in checks.examine(opened, repair, deep):
                results.append(result)
                if not as_json:
                    print(result)
        left = [result for result in results if not result.repaired]
        if as_json:
            print_json([result.to_json() for result in results])
        elif not results:
            print("Nothing is wrong.")
        elif any(result.finding.repair for result in left) and not repair:
            print("To repair what can be: remint doctor --repair")
        sys.exit(FAILED if left else OK)


def release(named: str) -> tuple[str, int]:
    """("images", 2) of "images@2"."""
    family, _, number = named.partition("@")
    if not (number.isascii() and number.isdigit()):
        raise UserError(f"--accept {named}: name a release as {family}@2")
    return family, int(number)
