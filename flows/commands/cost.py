"""`remint cost`: what runs cost and saved."""

import click

from flows.console import one_line_errors, print_json

RUNS = 10


@click.command(short_help="Show what a run cost, stage by stage.")
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print seconds and bytes as JSON on standard output.")
def cost(run: str | None, as_json: bool) -> None:
    """Show what RUN cost, stage by stage; without RUN the newest one, and a line for each of the last ten.

    Of each stage: the time of machines, of processors and of GPUs that all its attempts took, failed ones too, the
    bytes it moved, and the memory of its largest process. A stage that was restored or had not changed saved what it
    cost when it was made. Stages that work at once count each.

    With prices the table has them too: REMINT_PRICE_CPU is what an hour of CPU time costs, REMINT_PRICE_GPU an hour of
    one GPU.

    \b
    Examples:
      remint cost
      remint cost run/20261121T012434Z-1a2b3c4 --json
      REMINT_PRICE_GPU=2.50 remint cost
    """
    with one_line_errors():
        from flows import settings
        from flows.catalogue import costs, database
        from flows.show import cost

        chosen = settings.here()
        prices = cost.Prices.of(chosen)
        with database.open(chosen).read() as session:
            found = costs.find(session, run)
            past = costs.newest(session, RUNS) if run is None else costs.of_runs(session, [found] if found else [])
        if as_json:
            values = [cost.to_json(one, prices) for one in past]
            print_json({"runs": values} if run is None else values[0])
        elif not past:
            print("no run has been recorded here yet: remint retrain")
        else:
            print(cost.text(past, prices))
