"""Measures the house: `python tests/house.py` prints its lines, modules, circles and floors; a test holds the bars.

A room is a folder of `flows/` or a module beside them. An arrow is an import that happens at run time, also inside
functions; what only a type checker reads is none. Floors are the longest chain of rooms, each of which imports the
next.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class House:
    """The modules of `data`, `models` and `flows` with what each imports of the others."""

    lines: Mapping[str, int]  # by module of flows
    imports: Graph  # between modules
    rooms: Graph  # between rooms of flows

    @property
    def circles(self) -> list[list[str]]:
        """Modules that reach themselves, each circle once."""
        return [found for found in components(self.imports) if len(found) > 1]

    @property
    def mutual(self) -> list[tuple[str, str]]:
        """Pairs of rooms that import each other."""
        return sorted((a, b) for a in self.rooms for b in self.rooms[a] if a < b and a in self.rooms.get(b, ()))

    @property
    def tangled(self) -> list[list[str]]:
        """Rooms that reach themselves through others, each circle once."""
        return [found for found in components(self.rooms) if len(found) > 1]

    @property
    def floors(self) -> list[str]:
        """The longest chain of rooms, from the top down; only of a house without circles of rooms."""

        @cache
        def down(room: str) -> list[str]:
            return [room, *max((down(other) for other in self.rooms.get(room, ())), key=len, default=[])]

        return max((down(room) for room in self.rooms), key=len)


def measure(root: Path = ROOT) -> House:
    """The house as its files are now."""
    files = {_name(path, root): path for top in ("data", "models", "flows") for path in (root / top).rglob("*.py")}
    imports = {name: set(_imported(ast.parse(path.read_text()), files)) - {name} for name, path in files.items()}
    rooms: dict[str, set[str]] = defaultdict(set)
    for name, others in imports.items():
        rooms[_room(name)] |= {_room(other) for other in others} - {_room(name)}
    inside = {room: {one for one in others if one.startswith("flows.")} for room, others in rooms.items()}
    lines = {
        name: len(path.read_text().splitlines())
        for name, path in files.items()
        if name.startswith("flows") and path.name != "__init__.py"
    }
    return House(lines, imports, {room: others for room, others in inside.items() if room.startswith("flows.")})


def components(graph: Graph) -> list[list[str]]:
    """Strongly connected components (Tarjan 1972), by recursion: no chain of imports is long."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return found


def _name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _imported(tree: ast.Module, files: Mapping[str, Path]) -> Iterator[str]:
    hidden = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name in files)
        elif isinstance(node, ast.ImportFrom) and node.module in files:
            for one in node.names:
                inner = f"{node.module}.{one.name}"
                yield inner if inner in files else str(node.module)


if __name__ == "__main__":
    house = measure()
    total, longest = sum(house.lines.values()), max(house.lines, key=house.lines.__getitem__)
    print(f"lines {total}  modules {len(house.lines)}  longest {house.lines[longest]} ({longest})")
    print(f"circles {house.circles or 0}  mutual rooms {house.mutual or 0}  circles of rooms {house.tangled or 0}")
    if not house.tangled:
        print(f"floors {len(house.floors)}: {' > '.join(house.floors)}")
