"""Notices reach a webhook whole and once, or one line says why not; a run never waits long or fails for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.catalogue.alarms import Alarm
from flows.pipeline.run import RunInfo
from flows.release import notify
from flows.release.gates.decision import Decision, Rule
from flows.release.outcome import Release
from flows.release.pointers import Member, Pointer
from flows.release.promote import FamilyOutcome
from flows.settings import Settings, child_environment

NOTICE = notify.Notice("drift", "photographs", "brightness of 60 new photographs: 0.4, over 0.25", trigger="drift")
WHEN = datetime(2026, 1, 1, tzinfo=UTC)
RUN = RunInfo("20260101T000000Z-abc", "run/x", "c" * 40, "b" * 40, Path("w"), False, "p", WHEN, "schedule")


class Receiver(ThreadingHTTPServer):
    """Answers with the given codes, one after the other, then with 200; keeps what it was told."""

    def __init__(self, *codes: int) -> None:
        self.codes, self.heard = list(codes), list[tuple[dict[str, str], dict[str, Any]]]()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/T0SECRET"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.heard.append((dict(self.headers), body))
        code = server.codes.pop(0) if server.codes else 200
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(notify, "TIMEOUT_SECONDS", 1.0)


@pytest.fixture
def receivers() -> Iterator[Any]:
    made: list[Receiver] = []

    def make(*codes: int) -> Receiver:
        made.append(Receiver(*codes))
        return made[-1]

    yield make
    for one in made:
        one.shutdown()
        one.server_close()


def told(tmp_path: Path, webhook: str, notices: list[notify.Notice], token: str | None = "hush-hush") -> list[str]:
    said: list[str] = []
    settings = Settings(root=tmp_path, webhook=webhook, webhook_token=token)  # type: ignore[arg-type]
    notify.tell(settings, notices, said.append)
    return said


def test_a_notice_is_posted_as_json_with_the_secret_in_a_header(tmp_path: Path, receivers: Any) -> None:
    server = receivers()
    assert told(tmp_path, server.address, [NOTICE]) == []
    ((headers, body),) = server.heard
    assert headers["Authorization"] == "Bearer hush-hush"
    assert headers["Content-Type"] == "application/json"
    assert (body["event"], body["subject"], body["trigger"]) == ("remint.drift", "photographs", "drift")
    assert body["text"] == NOTICE.text
    assert told(tmp_path, server.address, [NOTICE], token=None) == []
    assert "Authorization" not in server.heard[1][0]
    assert server.heard[1][1]["id"] == body["id"]  # the same thing told twice


def test_a_receiver_that_stumbles_is_asked_again(tmp_path: Path, receivers: Any) -> None:
    server = receivers(503, 429, 500)
    assert told(tmp_path, server.address, [NOTICE]) == []
    assert len(server.heard) == notify.TRIES
    assert len({body["id"] for _, body in server.heard}) == 1


@pytest.mark.parametrize(
    ("codes", "said", "heard"),
    [((500,) * 9, "it answers 500", notify.TRIES), ((404,), "it answers 404", 1), ((302,), "it answers 302", 1)],
)
def test_a_receiver_that_refuses_costs_one_line_and_no_secret(
    tmp_path: Path, receivers: Any, codes: tuple[int, ...], said: str, heard: int
) -> None:
    server = receivers(*codes)
    (line,) = told(tmp_path, server.address, [NOTICE])
    shown = f"REMINT_WEBHOOK=http://127.0.0.1:{server.server_port}"
    assert line == f"drift of photographs could not be told to {shown}: {said}"
    assert len(server.heard) == heard


def test_no_receiver_a_silent_one_and_no_address_cost_one_line_each(tmp_path: Path, receivers: Any) -> None:
    import socket

    with socket.socket() as silent, socket.socket() as away:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        away.bind(("127.0.0.1", 0))
        notify.TIMEOUT_SECONDS = 0.1
        assert told(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}/s3cret", [NOTICE])[0].endswith("in time")
        assert "Connection refused" in told(tmp_path, f"http://127.0.0.1:{away.getsockname()[1]}/s3cret", [NOTICE])[0]
    for wrong in ("file:///etc/passwd", "s3cret", "http://[s3cret"):
        (line,) = told(tmp_path, wrong, [NOTICE])
        assert "s3cret" not in line
        assert "passwd" not in line


def test_neither_address_nor_token_is_in_the_settings_or_given_to_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMINT_WEBHOOK", "https://example.org/T0SECRET")
    monkeypatch.setenv("REMINT_WEBHOOK_TOKEN", "hush-hush")
    settings = Settings(root=tmp_path)
    assert settings.webhook is not None
    shown = f"{settings!r} {settings} {settings.model_dump_json()} {child_environment(settings)}"
    assert "T0SECRET" not in shown
    assert "hush-hush" not in shown


def test_a_run_tells_its_alarms_refusals_and_releases() -> None:
    rules = (Rule("psnr", False, 20.0, 21.0),)
    alarm = Alarm("tokenizer", "i" * 64, ("a" * 64, "b" * 64), ("r1", "r2"), ("m", "m"))
    refused = Decision("tokenizer", 3, False, "psnr is worse", rules, weights="w", family="images")
    kept = Decision("depth-small", 2, True, "better", weights="w", family="depth")
    member = Member("depth-small", 2, "e" * 64, "t", "f" * 64)
    pointer = Pointer("depth", 1, (member,), "run", "c" * 40, "a", "b", "d", "")
    outcomes = (
        FamilyOutcome("depth", "released", "better", pointer),
        FamilyOutcome("images", "refused", "psnr is worse"),
    )
    made = Release(alarms=(alarm,), decisions=(refused, kept), outcomes=outcomes)
    notices = notify.of_release(RUN, made)
    assert [(one.event, one.subject) for one in notices] == [
        ("alarm", "tokenizer"),
        ("gate-refused", "tokenizer@v3"),
        ("released", "depth"),
    ]
    assert {one.trigger for one in notices} == {"schedule"}
    assert [one.run for one in notices] == [RUN.id, RUN.id, "run"]  # a release may be of an earlier run's models
    assert notices[1].details == {"rules": ["psnr"]}
    assert notices[2].details == {"family": "depth", "number": 1, "models": {"depth-small": 2}, "restores": None}


def test_a_run_that_ends_with_an_error_tells_it_and_raises_it(tmp_path: Path, receivers: Any) -> None:
    server = receivers()
    settings = Settings(root=tmp_path, webhook=server.address)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="disk full"), notify.failure(settings, RUN):
        raise OSError("disk full\nand more")
    ((_, body),) = server.heard
    assert body["event"] == "remint.run-failed"
    assert body["text"] == f"run {RUN.id} failed: disk full and more"
