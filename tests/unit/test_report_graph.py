"""The drawn graph: what it leaves out, and a layout without stages on top of each other."""

import xml.etree.ElementTree as ElementTree

import pytest

from models.report.graph import Graph, draw, reduced

CHAIN = Graph(
    (
        "scenes",
        "photos",
        "proxy",
        "tokenizer-warmup",
        "generator@maskgit",
        "evaluate@maskgit",
        "evaluate@depth",
        "report",
    ),
    (
        ("scenes", "proxy"),
        ("scenes", "tokenizer-warmup"),
        ("proxy", "tokenizer-warmup"),
        ("tokenizer-warmup", "generator@maskgit"),
        ("generator@maskgit", "evaluate@maskgit"),
        ("photos", "evaluate@depth"),
        ("scenes", "evaluate@depth"),
        ("evaluate@maskgit", "report"),
        ("evaluate@depth", "report"),
    ),
)


def test_edges_that_a_longer_path_implies_are_not_drawn() -> None:
    graph = Graph(("a", "b", "c"), (("a", "b"), ("b", "c"), ("a", "c")))
    assert reduced(graph) == [("a", "b"), ("b", "c")]


@pytest.mark.parametrize("across", [True, False])
def test_no_two_boxes_overlap_and_all_lie_inside(across: bool) -> None:
    root = ElementTree.fromstring(draw(CHAIN, across))
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    boxes = [tuple(float(r.attrib[k]) for k in ("x", "y", "width", "height")) for r in root.iter("rect")]
    assert len(boxes) == len(CHAIN.stages)
    assert all(x >= 0 and x + w <= width and y >= 0 and y + h <= height for x, y, w, h in boxes)
    for i, (ax, ay, aw, ah) in enumerate(boxes):
        for bx, by, bw, bh in boxes[i + 1 :]:
            assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay


def test_stages_carry_what_became_of_them() -> None:
    assert 'class="stage data restored"' in draw(Graph(("scenes",), ()), True, {"scenes": "restored"})


def test_the_same_graph_gives_the_same_drawing() -> None:
    assert draw(CHAIN) == draw(CHAIN)
