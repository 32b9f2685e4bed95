"""What a stage prints: whole lines go to the log, a progress bar's states only to the display."""

import pytest

from flows.stage.process import StageFailed, _Watcher, _why


@pytest.fixture
def heard(tmp_path):
    lines = []
    watcher = _Watcher(tmp_path / "stage.log", lambda text, whole: lines.append((text, whole)))
    return watcher, lines


def test_lines_cut_across_reads_are_joined(heard):
    watcher, lines = heard
    watcher.feed(b"first li")
    watcher.feed(b"ne\nsecond\n")
    assert lines == [("first line", True), ("second", True)]
    assert watcher.log.read_text() == "first line\nsecond\n"


def test_a_character_cut_across_reads_is_joined(heard):
    watcher, lines = heard
    watcher.feed("±".encode()[:1])
    watcher.feed("±".encode()[1:] + b"\n")
    assert lines == [("±", True)]


def test_of_a_progress_bar_the_log_keeps_the_last_state(heard):
    watcher, lines = heard
    watcher.feed(b"\r10 %\r20 %")
    watcher.feed(b"\r30 %")
    watcher.feed(b"\rall\nnext\n")
    assert lines == [("20 %", False), ("30 %", False), ("all", True), ("next", True)]
    assert watcher.log.read_text() == "all\nnext\n"


def test_the_last_line_needs_no_end(heard):
    watcher, _ = heard
    watcher.feed(b"done")
    watcher.close()
    assert watcher.log.read_text() == "done\n"


def test_dvc_says_whether_a_stage_ran(heard):
    watcher, _ = heard
    assert watcher.action == "ran"
    watcher.feed(b"Stage 'a' is cached - skipping run, checking out outputs\n")
    assert watcher.action == "restored"
    watcher.feed(b"Stage 'a' didn't change, skipping\n")
    assert watcher.action == "current"


def test_the_exit_code_of_the_stage_is_found_in_dvcs_words(heard):
    watcher, _ = heard
    watcher.feed(b"ERROR: failed to reproduce 'a': failed to run: python -m a --out b, exited with 2\n")
    assert watcher.code == 2


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "failed with exit code 1"),
        (2, "reported a mistake in its input"),
        (-9, "was killed by SIGKILL (out of memory?)"),
        (139, "was killed by SIGSEGV"),
    ],
)
def test_an_exit_code_is_said_in_words(code, said):
    assert _why(code) == said


def test_a_failure_shows_the_end_of_its_log(tmp_path):
    log = tmp_path / "stage.log"
    log.write_text("\n".join(f"line {i}" for i in range(100)))
    assert StageFailed("a", "failed", log).tail()[-1] == "line 99"
    assert len(StageFailed("a", "failed", log).tail()) == 15
    assert StageFailed("a", "failed", tmp_path / "none.log").tail() == []
