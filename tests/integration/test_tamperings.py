"""Bytes that were damaged, taken away, swapped or forged in every place: all are named, none gets into production.

Each case changes one thing in a small project with a release, as a failing disk or somebody with the right to write
would, and lists the commands that must notice it with the words that name it. Whatever the commands said, and whatever
`remint doctor --repair` made of it, production is then what it was.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from data.params import UserError
from flows.production import bundle, pointers
from flows.production.pull import pull
from flows.release import doctor, promote, rollback, tags
from flows.release.stores import Stores
from tests.released import copied, finished, train

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def three_runs(two_runs, tmp_path_factory):
    """A project whose newest run has made a second release of each family. To be copied, not changed."""
    from flows.release import recorded, stores

    chosen = copied(two_runs, tmp_path_factory.mktemp("tampered") / "project")
    with recorded.environment({}), chdir(chosen.root), stores.opened(chosen) as places:
        finished(places, train(chosen, 3))
    return chosen.root


@pytest.fixture
def places(three_runs, tmp_path):
    from flows.release import stores

    with chdir(tmp_path), stores.opened(copied(three_runs, tmp_path / "project")) as opened, chdir("project"):
        yield opened


# What commands say: each is a function of the places that returns the words, "" if it has nothing to say.


def said(act: Callable[[], object]) -> str:
    try:
        return str(act() or "")
    except UserError as error:
        return str(error)


def doctors(places: Stores, **how: bool) -> str:
    return "\n".join(map(str, doctor.examine(places, **how)))


COMMANDS: dict[str, Callable[[Stores], str]] = {
    "doctor": doctors,
    "doctor --deep": lambda places: doctors(places, deep=True),
    "doctor --deep --repair": lambda places: doctors(places, deep=True, repair=True),
    "promote": lambda places: said(lambda: promote.of_run(places, "images", None, "me", "")),
    "rollback": lambda places: said(lambda: rollback.rollback(places, "images", None, "me")),
    "pull": lambda places: said(lambda: pull(places.bucket, "images", None, Path("pulled")) and ""),
    "pull @1": lambda places: said(lambda: pull(places.bucket, "images", 1, Path("pulled-1")) and ""),
}


def production(places: Stores) -> dict[str, object]:
    """What everybody who asks gets: by the log, by MLflow's aliases, by git's tags."""
    there, found = tags.read(places.settings.root), dict[str, object]()
    for model in places.mlflow().search_registered_models():
        found[f"{model.name} alias"] = dict(model.aliases).get("production")
        found[f"{model.name} tag"] = tags.assigned(model.name, "production", there)
    return found


# How the bytes of a file change.


@contextmanager
def writable(path: Path) -> Iterator[None]:
    mode = path.stat().st_mode
    path.chmod(0o644)
    yield
    path.chmod(mode)


def flipped(path: Path) -> None:
    """One bit of the last byte, as a disk does it: size and mode stay."""
    raw = path.read_bytes()
    with writable(path):
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))


def cut(path: Path) -> None:
    raw = path.read_bytes()
    with writable(path):
        path.write_bytes(raw[: len(raw) // 2])


def gone(path: Path) -> None:
    path.unlink()


def member(places: Stores, number: int, model: str = "tokenizer") -> pointers.Member:
    release = pointers.read(places.bucket, "images", number)
    return next(one for one in release.members if one.model == model)


def of_bundle(number: int, name: str, change: Callable[[Path], None]) -> Callable[[Stores], None]:
    """A file of the tokenizer's bundle in that release."""

    def damage(places: Stores) -> None:
        prefix = bundle.prefix("tokenizer", member(places, number).bundle)
        change(places.settings.home / "production" / prefix / name)

    return damage


def swapped(path: Path) -> None:
    """The same file of the other release: right of its kind, and readable."""
    other = next(one for one in path.parent.parent.iterdir() if one != path.parent)
    path.unlink()
    path.write_bytes((other / path.name).read_bytes())


@dataclass(frozen=True)
class Case:
    name: str
    damage: Callable[[Stores], None]
    says: dict[str, str]  # by command, a pattern of what it must say
    mended: bool = False  # whether `doctor --deep --repair` leaves nothing wrong


WEIGHTS = r"model\.safetensors"
CASES = [
    Case(
        "weights of the bundle in production flipped",
        of_bundle(2, "model.safetensors", flipped),
        {
            "doctor": "^$",
            "doctor --deep": f"{WEIGHTS} was changed: expected sha256",
            "pull": f"{WEIGHTS} has the wrong",
        },
        mended=True,
    ),
    Case(
        "weights of the bundle in production cut",
        of_bundle(2, "model.safetensors", cut),
        {"doctor": f"{WEIGHTS} was changed: expected .* bytes, found", "pull": f"{WEIGHTS} has"},
        mended=True,
    ),
    Case(
        "weights of the bundle in production gone",
        of_bundle(2, "model.safetensors", gone),
        {"doctor": f"holds no .*{WEIGHTS}", "pull": f"holds no .*{WEIGHTS}"},
        mended=True,
    ),
    Case(
        "weights of an older bundle flipped",
        of_bundle(1, "model.safetensors", flipped),
        {"doctor --deep": WEIGHTS, "rollback": f"{WEIGHTS} was changed.*remint doctor", "pull @1": WEIGHTS},
        mended=True,
    ),
    Case(
        "weights of an older bundle gone",
        of_bundle(1, "model.safetensors", gone),
        {"doctor": WEIGHTS, "rollback": f"holds no .*{WEIGHTS}.*remint doctor", "pull @1": WEIGHTS},
        mended=True,
    ),
    Case(
        "configuration of the bundle in production flipped",
        of_bundle(2, "config.json", flipped),
        {"doctor --deep": r"config\.json was changed", "pull": r"config\.json has the wrong content"},
        mended=True,
    ),
    Case(
        "configuration of an older bundle cut",
        of_bundle(1, "config.json", cut),
        {"doctor": r"config\.json was changed", "rollback": r"config\.json was changed"},
        mended=True,
    ),
    Case(
        "weights of the older bundle in the place of those in production",
        of_bundle(2, "model.safetensors", swapped),
        {"doctor --deep": f"{WEIGHTS} was changed: expected sha256", "pull": f"{WEIGHTS} has the wrong content"},
        mended=True,
    ),
    Case(
        "metrics of the bundle in production gone",
        of_bundle(2, "metrics.json", gone),
        {"doctor": r"metrics\.json", "pull": r"metrics\.json"},
        mended=True,
    ),
    Case(
        "manifest of the bundle in production flipped",
        of_bundle(2, "manifest.json", flipped),
        {"doctor": r"manifest\.json has the wrong content", "pull": r"manifest\.json has the wrong content"},
    ),
    Case(
        "manifest of an older bundle gone",
        of_bundle(1, "manifest.json", gone),
        {"doctor": "holds no bundle", "rollback": "holds no bundle", "pull @1": "holds no bundle"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_what_was_tampered_with_is_named_and_does_not_get_into_production(places, case):
    before = production(places)
    newest = [pointers.newest(places.bucket, family) for family in ("images", "depth")]
    case.damage(places)
    for command, words in case.says.items():
        assert re.search(words, COMMANDS[command](places)), command
    COMMANDS["doctor --deep --repair"](places)
    assert production(places) == before
    if case.mended:
        assert COMMANDS["doctor --deep"](places) == ""
        assert [pointers.newest(places.bucket, family) for family in ("images", "depth")] == newest
        assert COMMANDS["pull"](places) == COMMANDS["pull @1"](places) == ""
    else:
        assert COMMANDS["doctor --deep"](places)
