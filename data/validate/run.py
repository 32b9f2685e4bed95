"""The adapter to Great Expectations: a suite over a frame, without a project folder, telemetry or progress bars."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

ROWS_NAMED = 10  # failing rows that are kept; the count is always complete


@dataclass(frozen=True)
class Suite:
    """Expectations over one frame, whose rows are called by its column `key`."""

    name: str
    frame: pd.DataFrame
    expectations: list[Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one expectation. `rows` are the first failing rows as (key, value)."""

    suite: str
    expectation: str
    column: str
    description: str
    severity: str
    success: bool
    observed: str
    unexpected: int
    rows: list[tuple[str, Any]]

    def sentence(self) -> str:
        """The failure in one line: expectation, column, how many rows and the first of them."""
        first = ", ".join(f"{key} ({value})" for key, value in self.rows[:3])
        where = f" in {self.unexpected} row{'s' * (self.unexpected != 1)}, first {first}" if self.rows else ""
        seen = f"; observed {self.observed}" if self.observed and not self.rows else ""
        why = f" [{self.description}]" if self.description else ""
        return f"{self.suite}: {self.expectation} on {self.column} failed{where}{seen}{why}"


def run(suites: list[Suite]) -> list[tuple[Any, list[Outcome]]]:
    """Validate each suite: Great Expectations' own result (for its pages) and the outcomes, in the suite's order."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("remint")
    done = []
    for suite in suites:
        batch = (
            source.add_dataframe_asset(suite.name)
            .add_batch_definition_whole_dataframe("all")
            .get_batch(batch_parameters={"dataframe": suite.frame})
        )
        expectations = context.suites.add(gx.ExpectationSuite(name=suite.name))
        expectations.expectations = suite.expectations
        result = batch.validate(
            expectations,
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": ROWS_NAMED,
                "unexpected_index_column_names": ["key"],
                "return_unexpected_index_query": False,
            },
        )
        done.append((result, [outcome(suite.name, one.to_json_dict()) for one in result.results]))
    return done


def outcome(suite: str, result: Mapping[str, Any]) -> Outcome:
    """One expectation's result, in the form that reports need."""
    config, found = result["expectation_config"], result["result"]
    kwargs = config["kwargs"]
    pair = [kwargs[name] for name in ("column_A", "column_B") if name in kwargs]
    column = kwargs.get("column") or ", ".join(pair) or "the table"
    broken = result["exception_info"].get("exception_message") if not result["success"] else None
    return Outcome(
        suite=suite,
        expectation=config["type"],
        column=column,
        description=config.get("description") or "",
        severity=config["severity"],
        success=bool(result["success"]),
        observed=str(broken or _observed(found)),
        unexpected=int(found.get("unexpected_count", 0)),
        rows=[(str(row.get("key", "")), _value(row)) for row in found.get("partial_unexpected_index_list") or []],
    )


def _observed(found: Mapping[str, Any]) -> Any:
    if found.get("observed_value") is not None:
        return found["observed_value"]
    if "unexpected_percent" in found:
        return f"{found['unexpected_percent'] or 0:.2f} % unexpected"
    return ""


def _value(row: Mapping[str, Any]) -> Any:
    """The failing value, short enough for a line; two values of a pair as a list."""
    values = [_short(value) for name, value in row.items() if name != "key"] or [row.get("key")]
    return values[0] if len(values) == 1 else values


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 32 else value
