"""Data Docs: Great Expectations' own result pages, on a page frame that needs no network and never changes.

The original frame loads style sheets and scripts from eight hosts and prints times and random identifiers;
ours (page.html) carries its few styles inside, so that a page opens from disk and its bytes depend on the
data alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.validate.run import Outcome

HERE = Path(__file__).parent


def write(folder: Path, done: list[tuple[Any, list[Outcome]]], facts: list[tuple[str, str]]) -> None:
    """Write `index.html` (failed expectations first, then those with a description) and SUITE.html for each suite."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    folder.mkdir(parents=True, exist_ok=True)
    view = DefaultJinjaPageView(custom_views_directory=str(HERE))
    view.env.filters["generate_html_element_uuid"] = lambda prefix="": prefix  # ids are unique without
    suites = [outcomes[0].suite for _, outcomes in done]
    for result, outcomes in done:
        suite = outcomes[0].suite
        result.meta = {"batch_spec": {"data_asset_name": suite}}  # what is left out here is the time of loading
        document = ValidationResultsPageRenderer().render(result)
        page = view.render(document, template="page.html", suite=suite, suites=suites)
        page = page.replace("../../../../expectations/", "")  # the pages of a suite and of its result are one here
        (folder / f"{suite}.html").write_text(_tidy(page), encoding="utf-8")
    everything = [one for _, outcomes in done for one in outcomes]
    shown = [one for one in everything if one.description or not one.success]
    shown.sort(key=lambda one: (one.success, one.severity != "critical"))
    rest = len(everything) - len(shown)
    index = view.env.get_template("index.html").render(outcomes=shown, rest=rest, suites=suites, facts=facts)
    (folder / "index.html").write_text(_tidy(index), encoding="utf-8")


def _tidy(page: str) -> str:
    return "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"
