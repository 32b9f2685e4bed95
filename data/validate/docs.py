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
    """Write `index.html` (all expectations, failed ones first) and one page per suite, SUITE.html."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    folder.mkdir(parents=True, exist_ok=True)
    view = DefaultJinjaPageView(custom_views_directory=str(HERE))
    view.env.filters["generate_html_element_uuid"] = lambda prefix="": prefix  # ids are unique without
    suites = [outcomes[0].suite for _, outcomes in done]
    for result, outcomes in done:
        result.meta = {"great_expectations_version": result.meta["great_expectations_version"]}  # drops the load time
        document = ValidationResultsPageRenderer().render(result)
        page = view.render(document, template="page.html", suite=outcomes[0].suite, suites=suites)
        (folder / f"{outcomes[0].suite}.html").write_text(_tidy(page), encoding="utf-8")
    everything = [one for _, outcomes in done for one in outcomes]
    everything.sort(key=lambda one: (one.success, one.severity != "critical"))
    index = view.env.get_template("index.html").render(outcomes=everything, suites=suites, facts=facts)
    (folder / "index.html").write_text(_tidy(index), encoding="utf-8")


def _tidy(page: str) -> str:
    return "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"
