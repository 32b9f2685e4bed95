"""The stage graph as a layered drawing: data at one end, this page at the other."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

MARGIN = 2
ONE_LINE = 14  # a longer name is written on two
SWEEPS = 12  # passes of the ordering inside the layers; it stands still after a few


@dataclass(frozen=True)
class Graph:
    """Stage names, those that come first to be drawn first, and edges (from, to)."""

    stages: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Box:
    """The size of every box and the room between two: (sideways, downwards) for each direction of drawing."""

    width: float
    height: float
    across: tuple[float, float] = (22, 18)
    down: tuple[float, float] = (16, 26)


STAGE = Box(98, 38)  # two lines of text


@dataclass(frozen=True)
class Layout:
    """Where the centre of each box lies, and the edges as drawn lines."""

    at: Mapping[str, tuple[float, float]]
    edges: Markup
    width: float
    height: float


def draw(graph: Graph, across: bool = True, status: Mapping[str, str] | None = None) -> Markup:
    """Draw the graph as SVG, from left to right (`across`) or from top to bottom.

    Edges that a longer path implies are left out. `status` (stage to "ran", "cached", ...) becomes a CSS class.
    """
    layout = arrange(graph, STAGE, across)
    boxes = [_box(stage, *layout.at[stage], (status or {}).get(stage, "")) for stage in graph.stages]
    label = f"{len(graph.stages)} stages: {feeds(graph)}"
    return Markup('<svg class="graph {}" viewBox="0 0 {} {}" width="{}" role="img" aria-label="{}">{}{}</svg>').format(
        "across" if across else "down",
        layout.width,
        layout.height,
        layout.width,
        label,
        layout.edges,
        Markup("").join(boxes),
    )


def arrange(graph: Graph, box: Box, across: bool = True) -> Layout:
    """Lay boxes of one size out in layers, so that few edges cross; edges that a longer path implies are left out."""
    rows = _layers(graph)
    chains = _chains(graph, rows)
    order = _ordered(rows, chains)
    gap = box.across if across else box.down
    step_x, step_y = box.width + gap[0], box.height + gap[1]
    widest = max(len(row) for row in order)

    def centre(depth: int, place: int) -> tuple[float, float]:
        middle = place + (widest - len(order[depth])) / 2
        a, b = (depth, middle) if across else (middle, depth)
        return MARGIN + box.width / 2 + a * step_x, MARGIN + box.height / 2 + b * step_y

    where = {node: centre(d, p) for d, row in enumerate(order) for p, node in enumerate(row)}
    across_count, down_count = (len(order), widest) if across else (widest, len(order))
    half = box.width / 2 if across else box.height / 2
    return Layout(
        at={node: point for node, point in where.items() if isinstance(node, str)},
        edges=Markup("").join(_curve([where[node] for node in chain], half, across) for chain in chains),
        width=2 * MARGIN + box.width + (across_count - 1) * step_x,
        height=2 * MARGIN + box.height + (down_count - 1) * step_y,
    )


def feeds(graph: Graph) -> str:
    """The edges in words: "scenes feeds proxy, tokens; proxy feeds tokens"."""
    return "; ".join(
        f"{stage} feeds {', '.join(t for s, t in graph.edges if s == stage)}"
        for stage in graph.stages
        if any(s == stage for s, _ in graph.edges)
    )


def reduced(graph: Graph) -> list[tuple[str, str]]:
    """Edges of the graph without those that a longer path implies."""
    children = {stage: {t for s, t in graph.edges if s == stage} for stage in graph.stages}

    def reach(stage: str) -> set[str]:
        return set().union(*({child} | reach(child) for child in children[stage])) if children[stage] else set()

    below = {stage: reach(stage) for stage in graph.stages}
    return [(s, t) for s, t in graph.edges if not any(t in below[other] for other in children[s] - {t})]


def _layers(graph: Graph) -> dict[str, int]:
    """Depth of every stage: the longest way to it, then as near to what it feeds as it can be."""
    parents = {stage: [s for s, t in graph.edges if t == stage] for stage in graph.stages}
    children = {stage: [t for s, t in graph.edges if s == stage] for stage in graph.stages}
    depth = dict.fromkeys(graph.stages, 0)
    for _ in graph.stages:  # as many rounds as the longest path can have edges
        depth = {s: max((depth[p] + 1 for p in parents[s]), default=0) for s in graph.stages}
    for _ in graph.stages:
        depth = {
            s: max(depth[s], min((depth[c] - 1 for c in children[s]), default=depth[s])) if parents[s] else depth[s]
            for s in graph.stages
        }
    return depth


Node = str | tuple[str, str, int]  # a stage, or the place where an edge crosses a layer between its ends


def _chains(graph: Graph, depth: Mapping[str, int]) -> list[list[Node]]:
    """Every edge as its ends and one place in each layer between them."""
    return [
        [source, *((source, target, d) for d in range(depth[source] + 1, depth[target])), target]
        for source, target in reduced(graph)
    ]


def _ordered(depth: Mapping[str, int], chains: list[list[Node]]) -> list[list[Node]]:
    """Order each layer by the mean place of its neighbours, so that few edges cross (Sugiyama's method)."""
    rows: list[list[Node]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for stage, d in depth.items():
        rows[d].append(stage)
    for node in itertools.chain.from_iterable(chains):
        if isinstance(node, tuple):
            rows[node[2]].append(node)
    links = [pair for chain in chains for pair in itertools.pairwise(chain)]
    neighbours: dict[Node, list[Node]] = {node: [] for row in rows for node in row}
    for a, b in links:
        neighbours[a].append(b)
        neighbours[b].append(a)
    best, fewest = rows, _crossings(rows, links)
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            place = {n: p - len(r) / 2 for r in rows for p, n in enumerate(r)}
            row.sort(key=lambda n: _mean([place[m] for m in neighbours[n]], place[n]))
        crossings = _crossings(rows, links)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _crossings(rows: list[list[Node]], links: list[tuple[Node, Node]]) -> int:
    place = {n: (d, p) for d, row in enumerate(rows) for p, n in enumerate(row)}
    pairs = [(place[a], place[b]) for a, b in links]
    return sum(
        a[0] == c[0] and (a[1] - c[1]) * (b[1] - d[1]) < 0 for (a, b), (c, d) in itertools.combinations(pairs, 2)
    )


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _curve(points: list[tuple[float, float]], half: float, across: bool) -> Markup:
    """Draw one edge, leaving and entering boxes at the middle of their sides, which are `half` a box away."""
    (x0, y0), *inner, (x1, y1) = points
    start = (x0 + half, y0) if across else (x0, y0 + half)
    end = (x1 - half, y1) if across else (x1, y1 - half)
    path = f"M{start[0]:.1f},{start[1]:.1f}"
    for (ax, ay), (bx, by) in itertools.pairwise([start, *inner, end]):
        middle = (ax + bx) / 2 if across else (ay + by) / 2
        c1, c2 = ((middle, ay), (middle, by)) if across else ((ax, middle), (bx, middle))
        path += f" C{c1[0]:.1f},{c1[1]:.1f} {c2[0]:.1f},{c2[1]:.1f} {bx:.1f},{by:.1f}"
    return Markup('<path class="edge" d="{}"/><circle class="tip" cx="{:.1f}" cy="{:.1f}" r="2"/>').format(path, *end)


def _box(stage: str, x: float, y: float, status: str) -> Markup:
    kind = "data" if re.match(r"scenes|photos|validate|tokens|pseudo", stage) else "model"
    kind = "closing" if re.match(r"evaluate|report", stage) else kind
    lines = _lines(stage)
    text = Markup("").join(
        Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
            x, y + 4 + 14 * (i - (len(lines) - 1) / 2), line
        )
        for i, line in enumerate(lines)
    )
    return Markup('<g class="stage {} {}"><rect x="{:.1f}" y="{:.1f}" width="{}" height="{}" rx="6"/>{}</g>').format(
        kind, status, x - STAGE.width / 2, y - STAGE.height / 2, STAGE.width, STAGE.height, text
    )


def _lines(stage: str) -> list[str]:
    """A stage's name on one line, or on two where it is long or one of several of its kind."""
    base, at, kind = stage.partition("@")
    if at:
        return [base, f"@{kind}"]
    head, dash, tail = stage.rpartition("-")
    return [head + dash, tail] if dash and len(stage) > ONE_LINE else [stage]
