"""Tables for a terminal: aligned where there is room, wrapped where there is less, in blocks where there is none."""

import pytest

from flows.show import columns as layout
from flows.show.columns import columns

NOTE = "depth-small delta1 gains 0.0102, at least 0.0031, asked 0.0015; maskgit recall gains 0.01 (at 98.33%)"
HEAD = ("rule", "candidate", "limit", "difference [95 %]", "samples", "")
GATES = [
    HEAD,
    ("required: psnr", "24.31", "a number", "-", "-", "passed"),
    ("psnr >= production - 0.25", "24.31", "23.9", "+0.0514 [-0.0412, +0.144]", "189", "passed"),
    (
        "better than production by more than noise and 0.1 x margin in one of 2 metrics",
        "none",
        "one",
        "-",
        "-",
        "FAILED",
    ),
]


def words(text: str) -> list[str]:
    return sorted(text.split())


def test_a_table_that_fits_is_aligned():
    assert columns([("stage", "seconds"), ("scenes", "6.3"), ("evaluate@depth", "-")], right=(1,), width=80) == (
        "stage           seconds\nscenes              6.3\nevaluate@depth        -"
    )


@pytest.mark.parametrize("width", [40, 60, 80, 100, 261])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(width):
    text = columns(GATES, right=(4,), notes=["", "", NOTE], width=width)
    assert max(map(len, text.splitlines())) <= width
    cells = " ".join(cell for line in GATES[1:] for cell in line if cell != "-")
    assert set(words(cells)) <= set(words(text.replace(";", "")))
    assert set(NOTE.split()) <= set(words(text))


def test_wide_cells_are_wrapped_before_numbers_are():
    lines = [("rule", "samples"), ("psnr must not fall below what production has", "189")]
    assert columns(lines, right=(1,), width=30) == (
        "rule                   samples\npsnr must not fall         189\nbelow what production\nhas"
    )


def test_without_room_for_columns_each_line_is_a_block_that_names_its_cells():
    lines = [
        ("rule", "candidate", "difference", "samples"),
        ("psnr >= 16", "24.31", "+0.0514 [-0.0412, +0.144]", "189"),
    ]
    assert columns(lines, right=(1, 3), width=24).splitlines() == [
        "psnr >= 16",
        "  candidate 24.31;",
        "  difference +0.0514",
        "  [-0.0412, +0.144];",
        "  samples 189",
    ]


def test_lines_without_headings_are_all_shown_in_the_narrowest_terminal():
    text = columns([("tokenizer", "v1", "psnr 24.1 dB"), ("maskgit", "v1", "gfwd 0.167")], headed=False, width=20)
    assert text.splitlines() == ["tokenizer", "  v1; psnr 24.1 dB", "maskgit", "  v1; gfwd 0.167"]


def test_what_is_indented_stays_so_and_keeps_to_the_width():
    text = columns([("metric", "what it is"), ("  psnr", "peak signal-to-noise ratio")], indent=2, width=30)
    assert text.splitlines()[1:] == ["    psnr  peak signal-to-noise", "          ratio"]


def test_the_width_is_the_terminals_or_the_one_that_COLUMNS_says(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert layout.terminal() == 40
    assert max(map(len, columns(GATES, right=(4,)).splitlines())) <= 40
