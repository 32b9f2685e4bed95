"""Write the report of what is under artifacts/: one HTML file that needs nothing else.

python -m models.report --artifacts artifacts --out artifacts/report

Takes two seconds. What a stage has not made yet is said on the page. The same artifacts give the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from data.core import entry
from models.report import collect, page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    path = page.write(page.render(collect.collect(arguments.artifacts)), arguments.out)
    print(f"report  {path}, {path.stat().st_size / 1e6:.1f} MB")  # noqa: T201 - a stage's output is read


if __name__ == "__main__":
    entry.run(main)
