"""Writes the tree of modules in docs/files.md from the first sentence of each docstring: `python docs/files.py`.

With --check it writes nothing and ends with 1 if the page is not what it would write.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "files.md"
TOPS = ("data", "models", "flows", "infra/stack")
FIRST, LAST = "data/ ", "infra/migrations/ "  # the lines around the tree


def sentence(path: Path) -> str:
    """What a module says of itself first."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].removesuffix(".")


def tree(folder: Path, name: str, depth: int) -> Iterator[str]:
    """A line for a package, its modules and the packages in it; a folder without a module has none."""
    modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and (path / "__init__.py").exists())
    yield f"{'  ' * depth}{name + '/':<{26 - 2 * depth}}{sentence(folder / '__init__.py')}"
    for path in modules:
        yield f"{'  ' * (depth + 1)}{path.name:<{24 - 2 * depth}}{sentence(path)}"
    for path in inner:
        yield from tree(path, path.name, depth + 1)


def page() -> str:
    """The page with its tree as the docstrings are now."""
    lines = PAGE.read_text().split("\n")
    begin = next(at for at, line in enumerate(lines) if line.startswith(FIRST))
    end = next(at for at, line in enumerate(lines) if line.startswith(LAST))
    between = [line for top in TOPS for line in tree(ROOT / top, top, 0)]
    return "\n".join([*lines[:begin], *between, *lines[end:]])


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(page() != PAGE.read_text() and "docs/files.md is out of date: python docs/files.py")
    PAGE.write_text(page())
