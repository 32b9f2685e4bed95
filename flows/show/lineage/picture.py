"""Lineage as a layered drawing: data and commits at one end, models made from them, models made from those.

The drawing carries its own style, light and dark, so that it looks the same in a report, on a page and as a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from flows.show.lineage.values import Lineage, Unknown
from flows.show.lineage.words import extent, short, verdict
from models.report.graph import Box, Graph, Layout, arrange, feeds

STYLE = Path(__file__).with_name("picture.css")
BOX = Box(192, 62, across=(46, 18), down=(18, 34))
READABLE = 0.85  # a drawing is not made smaller than this share of its size: a page then scrolls it sideways
FRAME = 14  # around a drawing that is a file of its own
PAD = 12  # between a box's side and its text
LETTER = {"title": 7.6, "hash": 6.7, "about": 5.9}  # mean width of a letter in pixels, on the large side


@dataclass(frozen=True)
class Node:
    """A box: a heading, a digest, and one line about it."""

    kind: str  # "data", "model", "commit"
    title: str
    digest: str
    about: str
    classes: str = ""


@dataclass
class Drawing:
    """The boxes by a key that is the same for the same thing, and the edges between them, in order of appearance."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: dict[tuple[str, str], None] = field(default_factory=dict)

    def graph(self) -> Graph:
        return Graph(tuple(self.nodes), tuple(self.edges))


def drawing(lineages: Sequence[Lineage]) -> Drawing:
    """The boxes and edges of some models' lineages, each thing once; the models asked for are marked."""
    made = Drawing()
    for lineage in lineages:
        _add(made, lineage)
    for lineage in lineages:
        key = _key(lineage)
        node = made.nodes[key]
        made.nodes[key] = Node(node.kind, node.title, node.digest, node.about, f"{node.classes} asked".strip())
    return made


def draw(lineages: Sequence[Lineage], across: bool = True, alone: bool = False) -> Markup:
    """The lineages of some models as one SVG element; `alone` makes it a file of its own, with a background.

    Edges that a longer path implies are left out: a generator's data came to it through its tokenizer.
    """
    made = drawing(lineages)
    layout = arrange(made.graph(), BOX, across)
    titles = {key: node.title for key, node in made.nodes.items()}
    named = Graph(tuple(titles.values()), tuple((titles[a], titles[b]) for a, b in made.edges))
    boxes = Markup("").join(_box(node, *layout.at[key]) for key, node in made.nodes.items())
    return Markup(
        '<svg {}class="lineage {}" viewBox="{}" width="{}" style="min-width:{}px; max-width:{}px" role="img" '
        'aria-label="{}"><style>{}</style>{}{}{}</svg>'
    ).format(
        Markup('xmlns="http://www.w3.org/2000/svg" ') if alone else "",
        "across" if across else "down",
        _view(layout, FRAME if alone else 0),
        *(f"{width:g}" for width in (layout.width, READABLE * layout.width, layout.width)),
        f"What {_and([one.name for one in lineages])} came from: {feeds(named)}",
        Markup(STYLE.read_text(encoding="utf-8")),
        _background(layout) if alone else "",
        layout.edges,
        boxes,
    )


def both(lineages: Sequence[Lineage]) -> Markup:
    """The drawing from left to right for wide screens and from top to bottom for narrow ones; a page shows one."""
    if not lineages:
        return Markup("")
    return Markup('<div class="scroll">{}{}</div>').format(draw(lineages, True), draw(lineages, False))


def _add(made: Drawing, lineage: Lineage) -> str:
    """Add a model and everything below it; what is there already stays."""
    key = _key(lineage)
    if key in made.nodes:
        return key
    run = lineage.made
    sources = []
    for data in lineage.data:
        about = extent(data) or verdict(data)
        node = Node("data", data.stage, data.digest, about, "failed" if data.verdict == "failed" else "")
        sources.append(_node(made, f"data {data.stage} {data.digest}", node))
    commit = Node("commit", f"commit {run.commit[:7]}", run.run, run.machine, "failed" if lineage.problems else "")
    sources.append(_node(made, f"commit {run.commit}", commit))
    sources += [_parent(made, parent) for parent in lineage.parents]
    now = lineage.now
    about = f"in production, release {now.number}" if now else "not in production"
    _node(made, key, Node("model", lineage.name, lineage.weights, about, "now" if now else ""))
    made.edges |= dict.fromkeys((source, key) for source in sources)
    return key


def _parent(made: Drawing, parent: Lineage | Unknown) -> str:
    if isinstance(parent, Lineage):
        return _add(made, parent)
    node = Node("model", parent.model, parent.weights, "not in the catalogue", "unknown")
    return _node(made, f"model {parent.model} {parent.weights}", node)


def _node(made: Drawing, key: str, node: Node) -> str:
    made.nodes.setdefault(key, node)
    return key


def _key(lineage: Lineage) -> str:
    return f"model {lineage.model} {lineage.weights}"


def _box(node: Node, x: float, y: float) -> Markup:
    left, top = x - BOX.width / 2, y - BOX.height / 2
    shown = short(node.digest) if node.kind != "commit" else node.digest
    lines = (("title", node.title), ("hash", shown), ("about", node.about))
    text = Markup("").join(
        Markup('<text class="{}" x="{:g}" y="{:g}">{}</text>').format(
            kind, left + PAD, top + 20 + 17 * i, _cut(line, kind)
        )
        for i, (kind, line) in enumerate(lines)
    )
    whole = Markup("<title>{}</title>").format(f"{node.title}\n{node.digest}\n{node.about}")
    return Markup('<g class="{}">{}<rect x="{:g}" y="{:g}" width="{:g}" height="{:g}" rx="7"/>{}</g>').format(
        f"{node.kind} {node.classes}".strip(), whole, left, top, BOX.width, BOX.height, text
    )


def _view(layout: Layout, frame: float) -> str:
    return f"{-frame:g} {-frame:g} {layout.width + 2 * frame:g} {layout.height + 2 * frame:g}"


def _background(layout: Layout) -> Markup:
    x, y, width, height = _view(layout, FRAME).split()
    return Markup('<rect class="paper" x="{}" y="{}" width="{}" height="{}"/>').format(x, y, width, height)


def _cut(text: str, kind: str) -> str:
    """As much of a text as fits into a box."""
    most = int((BOX.width - 2 * PAD) / LETTER[kind])
    return text if len(text) <= most else text[: most - 1] + "…"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
