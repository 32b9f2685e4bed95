"""The drawn and written lineage: one box for one thing, nothing outside its box, one tree for any depth."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from flows.show.lineage import picture, words
from flows.show.lineage.picture import BOX, LETTER, PAD, draw, drawing
from flows.show.lineage.values import Data, Holder, Lineage, Made, Place, Trace, Unknown, problems
from models.report import page
from models.report.collect import Material
from models.report.facts import RunFacts
from models.report.graph import Graph

SVG = "{http://www.w3.org/2000/svg}"
SCENES = Data("scenes", "5" * 32 + ".dir", 2240, 21_267_310, "passed")
PHOTOS = Data("photos", "a" * 32 + ".dir", verdict="failed")


def made(run: str) -> Made:
    return Made(
        run=run,
        tag=f"run/{run}",
        commit=(run[-1] * 40),
        base_commit="b" * 40,
        trigger="retrain",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        parameters="p" * 64,
        environment="e" * 64,
        machine="x86_64 AuthenticAMD avx512",
    )


def version(
    model: str, number: int, data=(SCENES,), parents=(), releases=(), run="20261121T012434Z-1a2b3c4"
) -> Lineage:
    return Lineage(
        model, number, "images", f"{model}{number}".ljust(64, "0"), "", made(run), {}, data, parents, releases
    )


TOKENIZER = version("tokenizer", 1, releases=(Place("images", 1, False), Place("images", 2, True)))
MASKGIT = version(
    "maskgit", 2, parents=(TOKENIZER,), releases=(Place("images", 2, True),), run="20261122T012434Z-2b3c4d5"
)
STUDENT = version("depth-small", 1, data=(SCENES, PHOTOS), parents=(Unknown("depth-teacher", "t" * 64),))


def test_what_two_models_share_is_drawn_once():
    nodes = drawing([TOKENIZER, MASKGIT, STUDENT]).nodes
    assert [node.title for node in nodes.values()].count("scenes") == 1
    assert [node.title for node in nodes.values()].count("tokenizer v1") == 1
    assert sorted(node.kind for node in nodes.values()) == ["commit"] * 2 + ["data"] * 2 + ["model"] * 4


def test_edges_lead_from_what_something_was_made_from():
    titles = drawing([MASKGIT])
    edges = {(titles.nodes[a].title, titles.nodes[b].title) for a, b in titles.edges}
    assert edges == {
        ("scenes", "tokenizer v1"),
        ("commit 4444444", "tokenizer v1"),
        ("tokenizer v1", "maskgit v2"),
        ("scenes", "maskgit v2"),
        ("commit 5555555", "maskgit v2"),
    }


@pytest.mark.parametrize("across", [True, False])
def test_no_text_leaves_its_box_and_no_box_the_drawing(across):
    long = replace(MASKGIT, model="a-generator-of-a-very-long-name-indeed", version=123456)
    root = ElementTree.fromstring(str(draw([long, STUDENT], across, alone=True)))
    x, y, width, height = (float(v) for v in root.attrib["viewBox"].split())
    groups = root.findall(f"{SVG}g")
    assert len(groups) == len(drawing([long, STUDENT]).nodes)
    for group in groups:
        box = group.find(f"{SVG}rect")
        left, top = float(box.attrib["x"]), float(box.attrib["y"])
        assert x <= left
        assert left + BOX.width <= x + width
        assert y <= top
        assert top + BOX.height <= y + height
        for line in group.findall(f"{SVG}text"):
            assert float(line.attrib["x"]) + len(line.text) * LETTER[line.attrib["class"]] <= left + BOX.width - PAD
            assert top < float(line.attrib["y"]) < top + BOX.height
    assert any("…" in (line.text or "") for line in root.iter(f"{SVG}text"))
    assert any("a-generator-of-a-very-long-name-indeed v123456" in (t.text or "") for t in root.iter(f"{SVG}title"))


def test_names_that_look_like_markup_are_escaped():
    shown = str(draw([replace(MASKGIT, made=replace(MASKGIT.made, machine="<script>&"))], alone=True))
    ElementTree.fromstring(shown)
    assert "<script>" not in shown


def test_production_failed_data_and_unknown_parents_stand_out():
    nodes = {node.title: node for node in drawing([STUDENT, MASKGIT]).nodes.values()}
    assert nodes["maskgit v2"].classes == "now asked"
    assert nodes["tokenizer v1"].classes == "now"
    assert nodes["photos"].classes == "failed"
    assert nodes["depth-teacher"].classes == "unknown"


def test_the_runs_report_shows_the_drawing():
    facts = RunFacts("r1", "c" * 40, "run/r1", "d" * 64, 1.0, Graph(("scenes",), ()), lineage=picture.both([MASKGIT]))
    nothing = Material({}, {}, (), {}, {}, (), "")
    section = page.render(nothing, facts).split('<section id="lineage">')[1]
    assert section.count('<svg class="lineage') == 2  # for a wide and for a narrow screen
    assert "tokenizer v1" in section
    assert "<svg" not in page.render(nothing, replace(facts, lineage=None)).split('<section id="lineage">')[1]


def test_the_same_lineage_gives_the_same_drawing_and_none_gives_none():
    assert picture.both([MASKGIT]) == picture.both([MASKGIT])
    assert picture.both([]) == ""


def test_a_tree_hangs_parents_below_their_children_and_wraps_long_lines():
    values = {"generator@maskgit": {f"parameter{i}": i for i in range(40)}}
    lines = words.text(replace(MASKGIT, parameters=values), width=100).splitlines()
    assert lines[0] == "maskgit v2  in production, images release 2"
    assert max(map(len, lines)) <= 100
    assert "└─ tokenizer v1  in production, images release 2" in lines
    assert lines[-1].startswith("   └─ scenes ")
    assert all(line[0] in "├│└ " for line in lines[1:])


def test_problems_of_parents_are_the_childs_too():
    broken = replace(TOKENIZER, problems=("tag gone",))
    assert problems(replace(MASKGIT, parents=(broken,), problems=("tag moved",))) == ["tag moved", "tag gone"]


def test_many_versions_are_counted_and_only_some_are_listed():
    holders = [Holder("maskgit", n, "images", "w", "r", (), (n,) if n <= 30 else (), None) for n in range(1, 101)]
    text = words.trace(Trace("photograph x", (SCENES,), tuple(holders)))
    assert "In production now: none that contains it." in text
    assert "100 model versions contain it:" in text
    assert "and 10 more that were in production once" in text
    assert "and 50 more that were never released" in text


@pytest.mark.parametrize(
    ("numbers", "text"), [((), ""), ((3,), "3"), ((1, 2, 3), "1-3"), ((7, 1, 2, 4, 9, 8), "1-2, 4, 7-9")]
)
def test_release_numbers_are_written_as_ranges(numbers, text):
    assert words.ranges(numbers) == text
