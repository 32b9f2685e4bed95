"""Writes README's table of `REMINT_*` variables from the fields of `flows.settings`: `python docs/variables.py`.

With --check it writes nothing and ends with 1 if the table is not what it would write.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from flows.settings import Settings

PAGE = Path(__file__).parents[1] / "README.md"
HEAD = "| variable | meaning | default |\n|---|---|---|\n"
OF_STAGES = [  # what a stage itself reads, run without a flow too
    ("REMINT_WORKERS", "processes of a data-parallel stage (rendering)", "number of cores"),
]


def rows() -> Iterator[tuple[str, str, str]]:
    """Name, meaning and default of each variable."""
    for name, field in Settings.model_fields.items():
        if isinstance(field.json_schema_extra, dict):
            yield f"REMINT_{name.upper()}", str(field.description), str(field.json_schema_extra["unset"])
    yield from OF_STAGES


def page() -> str:
    """The page with its table as the fields are now."""
    before, _, rest = PAGE.read_text().partition(HEAD)
    after = rest[rest.index("\n\n") :]
    table = "\n".join(f"| `{name}` | {what} | {unset} |" for name, what, unset in rows())
    return f"{before}{HEAD}{table}{after}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(page() != PAGE.read_text() and "README's table of variables is out of date: python docs/variables.py")
    PAGE.write_text(page())
