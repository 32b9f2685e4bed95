"""Photographs that arrive are taken in once each, by their bytes, whatever happens and whatever they are called."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from data.core.params import UserError
from data.photos.arrivals import Arrival
from flows.arrivals import batches, intake, watch
from flows.arrivals.batches import BEFORE, Batch
from flows.arrivals.intake import Taken
from flows.arrivals.thresholds import Thresholds
from flows.catalogue import database
from flows.catalogue.schema import Entry
from flows.settings import Settings
from tests.arriving import deliver, photograph, project, remove

pytestmark = pytest.mark.integration


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where photographs arrive; in S3 the log of them is kept in S3 as well."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3_address')}/inbox"
    (tmp_path / "inbox").mkdir()
    return str(tmp_path / "inbox")


@pytest.fixture
def settings(place: str, tmp_path: Path) -> Settings:
    kept = place.replace("/inbox", "/arrived")
    return project(tmp_path / "project", place, arrived=kept)


def take(settings: Settings) -> Taken:
    return intake.take_in(settings, batches.open(settings), None, lambda batch: None)


def log(settings: Settings) -> list[Batch]:
    return batches.open(settings).read()


def arrived(settings: Settings) -> list[Arrival]:
    return [one for batch in log(settings) if batch.source != BEFORE for one in batch.photographs]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_photograph_is_new_by_its_bytes_and_not_by_its_name(settings: Settings, place: str) -> None:
    first, second, third = photograph(1), photograph(2), photograph(3)
    deliver(place, {"a.jpg": first, "b.jpg": second})
    assert take(settings).arrived == 2
    assert [batch.source for batch in log(settings)] == [BEFORE, place]
    assert len(log(settings)[0].photographs) == 2  # what was there before comes first

    deliver(place, {"renamed/copy of a.jpg": first})
    again = take(settings)
    assert (again.arrived, again.known) == (0, 3)
    assert len(log(settings)) == 2

    deliver(place, {"a.jpg": third})  # the same name, other bytes
    assert take(settings).arrived == 1
    assert {one.sha256 for one in arrived(settings)} == {digest(first), digest(second), digest(third)}
    (settings.home / "watch" / "seen.db").write_bytes(b"lost")  # what this machine remembers is not what counts
    assert (take(settings).arrived, take(settings).known) == (0, 3)


def test_a_list_that_was_committed_before_stays_in_its_order(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    settings = project(tmp_path / "project", str(inbox))
    deliver(str(inbox), {f"{i}.jpg": photograph(i) for i in range(5)})
    take(settings)
    listed = settings.root / "data" / "incoming.arrivals"
    before = batches.open(settings)
    listed.write_text(before.text(reversed(before.read())))  # not sorted by digest
    params = settings.root / "params.yaml"
    params.write_text(params.read_text().replace("source: own", "source: data/incoming.arrivals"))
    anew = settings.model_copy(update={"arrived": str(tmp_path / "elsewhere")})
    deliver(str(inbox), {"new.jpg": photograph(9)})
    assert take(anew).arrived == 1
    text = batches.open(anew).text(log(anew))
    assert text.splitlines()[1:-1] == listed.read_text().splitlines()[1:]
    assert sum(path.is_file() for path in (tmp_path / "elsewhere" / "photographs").rglob("*")) == 8


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_the_list_that_a_run_is_given_only_grows_at_its_end(settings: Settings, place: str) -> None:
    texts = []
    for number in range(3):
        deliver(place, {f"{number}-{i}.jpg": photograph(10 * number + i) for i in range(3)})
        take(settings)
        texts.append(batches.open(settings).text(log(settings)))
    assert texts[1].startswith(texts[0])
    assert texts[2].startswith(texts[1])
    assert len(texts[2].splitlines()) == 1 + 2 + 9


def test_names_are_only_text(settings: Settings, place: str, tmp_path: Path) -> None:
    names = [
        "with space.jpg",
        "new\nline.jpg",
        "фото 写真 📷.jpg",
        "-rf",
        "$(touch x).jpg",
        "quo'te\".jpg",
        "a%2e%2e.jpg",
    ]
    names += ["x" * 300, "../../escape.jpg"] if "://" in place else ["x" * 250]
    before = {path for path in tmp_path.rglob("*") if settings.home not in path.parents}
    deliver(place, {name: photograph(i) for i, name in enumerate(names)})
    taken = take(settings)
    assert taken.arrived == len(names)
    assert {one.name for one in arrived(settings)} == set(names)
    store = batches.open(settings).store
    kept = store.list("photographs/")
    assert kept == sorted(f"photographs/{sha[:2]}/{sha}" for sha in (key.rsplit("/", 1)[1] for key in kept))
    assert not [path for path in tmp_path.rglob("*") if "escape" in path.name]
    assert {path for path in before if not path.exists()} == set()
    watched = watch.look(settings, Thresholds())
    assert watched.waiting == len(names)


def test_a_name_that_is_no_unicode_is_written_in_plain_signs(tmp_path: Path) -> None:
    settings = project(tmp_path / "project", str(tmp_path / "inbox"))
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / os.fsdecode(b"latin\xe9.jpg")).write_bytes(photograph(1))
    assert take(settings).arrived == 1
    assert [one.name for one in arrived(settings)] == ["latin\\udce9.jpg"]


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_what_is_no_photograph_is_set_aside_once_with_its_reason(settings: Settings, place: str) -> None:
    good = photograph(1)
    odd = {"notes.jpg": b"not a picture", "cut off.jpg": good[: len(good) // 2], "empty.jpg": b"", "good.jpg": good}
    odd |= {"small.jpg": photograph(2, size=(20, 20)), "huge.jpg": photograph(3, size=(1100, 1000))}
    deliver(place, odd)
    taken = take(settings)
    assert taken.arrived == 1
    reasons = {one.name: one.reason for one in taken.aside}
    assert set(reasons) == set(odd) - {"good.jpg"}
    assert "cannot be decoded" in reasons["cut off.jpg"]
    assert "is empty" in reasons["empty.jpg"]
    assert "less than a tile of 32" in reasons["small.jpg"]
    assert "more than 1000000" in reasons["huge.jpg"]
    again = take(settings)
    assert (again.arrived, again.known, again.aside) == (0, 6, [])


def test_pipes_links_to_nothing_and_files_in_the_making_do_not_stop_a_look(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    settings = project(tmp_path / "project", str(inbox))
    deliver(
        str(inbox),
        {"good.jpg": photograph(1), ".in-the-making": photograph(2), "a.jpg/b.jpg": photograph(3)},
    )
    os.mkfifo(inbox / "pipe.jpg")
    (inbox / "nowhere.jpg").symlink_to(tmp_path / "not there")
    taken = take(settings)
    assert taken.arrived == 2
    assert taken.later == [("pipe.jpg", "is not a regular file")]


def test_a_place_that_vanished_or_refuses_is_named_and_nothing_is_half_done(
    settings: Settings, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if "://" in place:
        assert take(settings).arrived == 0  # nothing has come yet, which is no error
    deliver(place, {"a.jpg": photograph(1)})
    take(settings)
    before = log(settings)
    if "://" in place:
        deliver(place, {"b.jpg": photograph(2)})
        with monkeypatch.context() as patched:
            patched.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
            with pytest.raises(UserError, match="refuses .SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY"):
                take(settings)
        remove(place)
        with pytest.raises(UserError, match="REMINT_INCOMING=.*nothing lies under this prefix"):
            take(settings)
        deliver(place, {"": b""})  # the mark of an empty folder
        assert take(settings).arrived == 0
        away = settings.model_copy(update={"incoming": "s3://no-such-bucket-at-all/inbox"})
        with pytest.raises(UserError, match="has no bucket no-such-bucket.*correct REMINT_INCOMING"):
            take(away)
    else:
        away = settings.model_copy(update={"incoming": str(tmp_path / "gone")})
        with pytest.raises(UserError, match="REMINT_INCOMING=.*gone: there is no such folder"):
            take(away)
    with pytest.raises(UserError, match="REMINT_INCOMING names no place to watch"):
        take(settings.model_copy(update={"incoming": None}))
    assert log(settings) == before


class Killed(BaseException):
    """Stands for a process that ends without another word."""


def test_a_watch_killed_at_any_instant_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = project(tmp_path / "project", str(tmp_path / "inbox"))
    deliver(str(tmp_path / "inbox"), {f"{i}.jpg": photograph(i) for i in range(2)} | {"odd.jpg": b"odd"})
    monkeypatch.setattr(intake, "PER_BATCH", 1)
    database.open(template).close()  # empty, to be copied: its migrations take longer than a look
    instant, killed = 0, True
    while killed:
        home = tmp_path / f"home-{instant}"
        settings = template.model_copy(
            update={"home": home, "arrived": str(home / "arrived"), "catalogue": f"sqlite:///{home / 'catalogue.db'}"}
        )
        shutil.copytree(template.home, home)
        killed = _killed_at(instant, settings, monkeypatch)
        watch.look(settings, Thresholds())
        assert Counter(one.sha256 for one in arrived(settings)) == {digest(photograph(i)): 1 for i in range(2)}
        assert [one.name for batch in log(settings) for one in batch.aside] == ["odd.jpg"]
        assert _journal(settings) == [batch.number for batch in log(settings)]
        instant += 1
    assert instant > 20  # or nothing was killed


def _killed_at(instant: int, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Look at the place, and end at the instant-th step before or after which something is kept."""
    steps = 0

    def step(function: Callable) -> Callable:
        def killing(*arguments: object, **named: object) -> object:
            nonlocal steps
            for done in (False, True):
                if steps == instant:
                    raise Killed
                steps += 1
                if not done:
                    result = function(*arguments, **named)
            return result

        return killing

    with monkeypatch.context() as patched:
        from flows.arrivals.incoming import Memo
        from flows.storage.folder import FolderBucket

        for owner, name in ((FolderBucket, "create"), (FolderBucket, "upload"), (Memo, "note"), (watch, "_record")):
            patched.setattr(owner, name, step(getattr(owner, name)))
        try:
            watch.look(settings, Thresholds())
        except Killed:
            return True
    return False


def _journal(settings: Settings) -> list[int]:
    catalogue = database.open(settings)
    try:
        with catalogue.read() as session:
            entries = session.query(Entry).filter_by(kind=watch.ARRIVAL).order_by(Entry.seq)
            return [json.loads(entry.body)["batch"] for entry in entries]
    finally:
        catalogue.close()


def test_two_watches_at_once_take_in_each_photograph_once(
    settings: Settings, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "PER_BATCH", 3)
    deliver(place, {f"{i}.jpg": photograph(i) for i in range(12)})
    errors: list[BaseException] = []
    together = threading.Barrier(2)

    def one(name: str) -> None:
        try:
            alone = settings.model_copy(update={"home": tmp_path / name})  # as on another machine
            together.wait()
            take(alone)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(f"home-{name}",)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Counter(one.sha256 for one in arrived(settings)) == {digest(photograph(i)): 1 for i in range(12)}
    assert [batch.number for batch in log(settings)] == list(range(1, len(log(settings)) + 1))
    assert [batch.source for batch in log(settings)].count(BEFORE) == 1
