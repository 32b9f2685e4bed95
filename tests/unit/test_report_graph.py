"""The drawn graph: edges out of dvc.yaml, and a layout without stages on top of each other."""

import xml.etree.ElementTree as ElementTree

import pytest

from models.report.graph import Graph, draw, read, reduced

DEFINITION = {
    "stages": {
        "scenes": {"deps": ["data"], "outs": ["artifacts/scenes"]},
        "proxy": {"deps": ["artifacts/scenes"], "outs": [{"artifacts/proxy/model": {"cache": True}}]},
        "generator": {
            "foreach": ["maskgit", "samba"],
            "do": {"deps": ["artifacts/proxy/model", "artifacts/scenes"], "outs": ["artifacts/generator/${item}"]},
        },
        "evaluate": {
            "foreach": {"a": {"inputs": ["artifacts/generator/maskgit"]}},
            "do": {"deps": ["${item.inputs[0]}", "${source}"], "metrics": ["artifacts/evaluate/${key}.json"]},
        },
        "report": {"deps": ["artifacts/evaluate"], "outs": ["artifacts/report"]},
    }
}


def test_edges_follow_outputs_that_other_stages_name() -> None:
    graph = read(DEFINITION, {"source": "artifacts/scenes"})
    assert graph.stages == ("scenes", "proxy", "generator@maskgit", "generator@samba", "evaluate@a", "report")
    assert ("scenes", "proxy") in graph.edges
    assert ("proxy", "generator@samba") in graph.edges
    assert ("generator@maskgit", "evaluate@a") in graph.edges
    assert ("scenes", "evaluate@a") in graph.edges  # through params.yaml
    assert ("evaluate@a", "report") in graph.edges  # a file inside the folder that is named


def test_a_matrix_is_a_stage_per_combination() -> None:
    definition = {"stages": {"train": {"matrix": {"kind": ["a", "b"]}, "outs": ["out/${item.kind}"]}}}
    assert read(definition, {}).stages == ("train@a", "train@b")


def test_edges_that_a_longer_path_implies_are_not_drawn() -> None:
    graph = Graph(("a", "b", "c"), (("a", "b"), ("b", "c"), ("a", "c")))
    assert reduced(graph) == [("a", "b"), ("b", "c")]


@pytest.mark.parametrize("across", [True, False])
def test_no_two_boxes_overlap_and_all_lie_inside(across: bool) -> None:
    root = ElementTree.fromstring(draw(read(DEFINITION, {}), across))
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    boxes = [tuple(float(r.attrib[k]) for k in ("x", "y", "width", "height")) for r in root.iter("rect")]
    assert len(boxes) == 6
    assert all(x >= 0 and x + w <= width and y >= 0 and y + h <= height for x, y, w, h in boxes)
    for i, (ax, ay, aw, ah) in enumerate(boxes):
        for bx, by, bw, bh in boxes[i + 1 :]:
            assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay


def test_stages_carry_what_became_of_them() -> None:
    assert 'class="stage data restored"' in draw(Graph(("scenes",), ()), True, {"scenes": "restored"})


def test_the_same_graph_gives_the_same_drawing() -> None:
    assert draw(read(DEFINITION, {})) == draw(read(DEFINITION, {}))
