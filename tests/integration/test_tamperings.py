"""Bytes that were damaged, taken away, swapped or forged in every place: all are named, none gets into production.

Each case changes one thing in a small project with a release, as a failing disk or somebody with the right to write
would, and lists the commands that must notice it with the words that name it. Whatever the commands said, and whatever
`remint doctor --repair` made of it, production is then what it was.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import chdir, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data.core.digests import sha256
from data.core.params import UserError
from flows.catalogue import journal
from flows.doctor import checks
from flows.pipeline import plan
from flows.pipeline.store import Store
from flows.release import anchors, bundle, of_run, pointers, procedure, rollback, tags
from flows.release.pull import pull
from flows.release.stores import Stores
from models import registry
from tests.released import copied, finished, git, train

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
    return "\n".join(map(str, checks.examine(places, **how)))


def begun(places: Stores) -> None:
    """What every command that changes something begins with."""
    procedure.resume_killed(places.settings, str)


def held(family: str, places: Stores) -> Callable[..., None]:
    return lambda log: anchors.hold(places.settings, family, log)


def plans(places: Stores) -> str:
    store = Store(places.settings.root)
    try:
        return "\n".join(step.why() for step in plan.make(store.stages, store).steps)
    finally:
        store.close()


COMMANDS: dict[str, Callable[[Stores], str]] = {
    "doctor": doctors,
    "doctor --deep": lambda places: doctors(places, deep=True),
    "doctor --deep --repair": lambda places: doctors(places, deep=True, repair=True),
    "promote": lambda places: said(lambda: begun(places) or of_run.promote_run(places, "images", None, "me", "")),
    "rollback": lambda places: said(lambda: begun(places) or rollback.rollback(places, "images", None, "me")),
    "pull": lambda places: said(
        lambda: pull(places.bucket, "images", None, Path("../here"), hold=held("images", places)) and ""
    ),
    "pull @1": lambda places: said(lambda: pull(places.bucket, "images", 1, Path("../older")) and ""),
    "pull elsewhere": lambda places: said(lambda: pull(places.bucket, "images", None, Path("../elsewhere")) and ""),
    "retrain": lambda places: said(lambda: begun(places)),
    "load": lambda places: said(lambda: registry.fetch("tokenizer@production") and ""),
    "plan": plans,
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


def pointer(places: Stores, number: int) -> Path:
    return places.settings.home / f"production/releases/images/{number:06d}.json"


def newest(places: Stores) -> str:
    return pointers.digest(pointers.read(places.bucket, "images", 2))


def rewritten(places: Stores, number: int, **changes: object) -> pointers.Pointer:
    """A pointer changed as Remint would have written it, so that nothing in itself shows it."""
    path = pointer(places, number)
    made = replace(pointers.read(places.bucket, "images", number), **changes)
    path.unlink()
    path.write_text(pointers.text(made))
    return made


def exchanged(places: Stores) -> None:
    one, other = pointer(places, 1), pointer(places, 2)
    texts = one.read_text(), other.read_text()
    for path, text in zip((other, one), texts, strict=True):
        path.unlink()
        path.write_text(text)


def forged(places: Stores) -> None:
    """A third release that leads back to the first one's models, chained to the second as it must be."""
    first, last = (pointers.read(places.bucket, "images", number) for number in (1, 2))
    why = {"who": "Mallory", "why": "better", "procedure": "images-3-0000", "run": first.run}
    pointers.append(places.bucket, replace(first, number=3, previous=pointers.digest(last), **why))


def sql(places: Stores, *statements: str) -> None:
    """As who may write the catalogue's file can, whatever its triggers say."""
    with closing(sqlite3.connect(places.settings.home / "catalogue.db")) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            database.execute(statement)
        database.commit()


SWAP = ((1, 99), (2, 1), (99, 2))
CUT = (
    "DELETE FROM journal WHERE seq = (SELECT max(seq) FROM journal)",
    "UPDATE journal_head SET seq = (SELECT max(seq) FROM journal), "
    "digest = (SELECT digest FROM journal ORDER BY seq DESC LIMIT 1)",
)


def alarm_cut(places: Stores) -> None:
    """What no release names; the doctor has looked at it before it was taken away."""
    with places.catalogue.begin() as session:
        journal.append(session, "alarm", "scenes", {"why": "two outputs"})
    doctors(places)
    sql(places, *CUT)


def weights_and_tag(places: Stores) -> None:
    path = registry.fetch("tokenizer@production") / "model.safetensors"
    flipped(path)
    places.mlflow().set_model_version_tag("tokenizer", "3", "weights", sha256(path))


def assignment(places: Stores) -> str:
    there = tags.read(places.settings.root)
    return str(tags.newest_assignment("tokenizer", "production", there))


def cache_file(places: Stores, stage: str, name: str) -> Path:
    """A file of a stage's output in the newest run, as the cache keeps it; the list of its files without a name."""
    store = Store(places.settings.root)
    try:
        assert plan.make(store.stages, store).empty  # everything is read once
        (oid,) = (oid for one in store.stages if one.name == stage for oid in store.recorded(one).outs.values())
        return store.cache.objects.path(store.cache.objects.members(oid)[name] if name else oid)
    finally:
        store.close()


def unseen(path: Path) -> None:
    before = path.stat()
    flipped(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


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
    Case(
        "the newest pointer gone",
        lambda places: pointer(places, 2).unlink(),
        {
            "doctor": "images #2 is not there, should be pointer .* by journal entry",
            "retrain": "images #2 is not there",
            "promote": "images #2 is not there.*nothing is done with it",
            "rollback": "images #2 is not there",
            "pull": "images #2 is not there",
            "pull elsewhere": "images@2, which an earlier pull .* is not in the log .* any more.*ends with images@1",
        },
        mended=True,
    ),
    Case(
        "the newest pointer written again, as a release is",
        lambda places: rewritten(places, 2, who="Mallory"),
        {
            "doctor": "images #2 is pointer .*, should be .*, by journal entry .*move it away, then remint doctor",
            "retrain": "images #2 is pointer",
            "promote": "images #2 is pointer",
            "rollback": "images #2 is pointer",
            "pull": "images #2 is pointer",
            "pull elsewhere": "images@2, .* is another one in .* now: digest .* then, .* now",
        },
    ),
    Case(
        "the newest pointer with the older one's models",
        lambda places: rewritten(places, 2, members=pointers.read(places.bucket, "images", 1).members),
        {"doctor": "images #2 is pointer", "pull": "images #2 is pointer", "pull elsewhere": "is another one"},
    ),
    Case(
        "the newest pointer cut",
        lambda places: cut(pointer(places, 2)),
        {"doctor": "images #2 is pointer", "promote": "000002.json is not a release's pointer", "pull": "000002.json"},
    ),
    Case(
        "an older pointer written again",
        lambda places: rewritten(places, 1, why="because"),
        {
            "doctor": "images #1 is pointer .*, should be pointer",
            "rollback": "release 2 of images follows a release 1 of digest",
            "pull @1": "release 2 of images follows a release 1 of digest",
            "pull": "release 2 of images follows",
        },
    ),
    Case(
        "every pointer written again, each as the next one names it",
        lambda places: rewritten(places, 2, previous=pointers.digest(rewritten(places, 1, why="because"))),
        {
            "doctor": "(?s)images #1 is pointer.*images #2 is pointer",
            "pull": "is pointer",
            "pull elsewhere": "another one",
        },
    ),
    Case(
        "an older pointer gone",
        lambda places: pointer(places, 1).unlink(),
        {
            "doctor": "images #1 is not there, should be pointer",
            "rollback": "release 1 of images is missing",
            "pull": "release 1 of images is missing",
        },
        mended=True,
    ),
    Case(
        "all pointers gone",
        lambda places: [pointer(places, number).unlink() for number in (1, 2)],
        {"doctor": "(?s)images #1 is not there.*images #2 is not there", "promote": "images #1 is not there"},
        mended=True,
    ),
    Case(
        "two pointers in each other's place",
        exchanged,
        {
            "doctor": "(?s)images #1 is pointer.*images #2 is pointer",
            "pull": "says that it is images@1",
            "rollback": "says",
        },
    ),
    Case(
        "one more pointer, as a release is written",
        lambda places: forged(places),
        {
            "doctor": "images #3 is pointer .*by Mallory.*no procedure of this catalogue.*--accept images@3",
            "pull": "images #3 is pointer .*by Mallory",
        },
    ),
    Case(
        "an entry of the journal changed",
        lambda places: sql(places, "UPDATE journal SET body = replace(body, 'retrain', 'because') WHERE seq = 1"),
        {"doctor": r"journal entry 1 \(release of .*\) was changed"},
    ),
    Case(
        "the digest of a pointer in the journal changed",
        lambda places: sql(places, f"UPDATE journal SET body = replace(body, '{newest(places)}', '{'0' * 64}')"),
        {"doctor": "(?s)images #2 is pointer .*, should be pointer 000000000000.*was changed", "pull": "images #2"},
    ),
    Case(
        "the journal's last entry gone",
        lambda places: sql(places, "DELETE FROM journal WHERE seq = (SELECT max(seq) FROM journal)"),
        {"doctor": "(?s)images #2 in the journal is not there.*missing at the end"},
    ),
    Case(
        "the journal's last entry gone, and its note of the end written again",
        lambda places: sql(places, *CUT),
        {"doctor": "images #2 in the journal is not there"},
    ),
    Case(
        "an alarm at the journal's end gone, and its note of the end written again",
        alarm_cut,
        {"doctor": "journal entry 5 is missing that were there when it was last looked at"},
    ),
    Case(
        "two entries of the journal in each other's place",
        lambda places: sql(places, *(f"UPDATE journal SET seq = {new} WHERE seq = {old}" for old, new in SWAP)),
        {"doctor": "was changed"},
    ),
    Case(
        "the whole journal gone",
        lambda places: sql(places, "DELETE FROM journal", "UPDATE journal_head SET seq = 0, digest = ''"),
        {"doctor": "images #1 in the journal is not there"},
    ),
    Case(
        "a row of the releases changed",
        lambda places: sql(places, "UPDATE release SET who = 'Mallory' WHERE family = 'images' AND number = 2"),
        {"doctor": "catalogue: images #2 is otherwise than pointer"},
        mended=True,
    ),
    Case(
        "a row of the releases with the digest of another pointer",
        lambda places: sql(places, f"UPDATE release SET pointer = '{'0' * 64}' WHERE family = 'images' AND number = 2"),
        {"doctor": "catalogue: images #2 is otherwise than pointer"},
        mended=True,
    ),
    Case(
        "the models of a release changed in the catalogue",
        lambda places: sql(places, f"UPDATE member SET weights = '{'0' * 64}' WHERE model = 'tokenizer'"),
        {"doctor": "catalogue: images #1 is otherwise than pointer"},
        mended=True,
    ),
    Case(
        "the rows of the newest release gone",
        lambda places: sql(
            places,
            "DELETE FROM member WHERE release_id IN (SELECT id FROM release WHERE number = 2)",
            "DELETE FROM release WHERE number = 2",
        ),
        {"doctor": "catalogue: images #2 is not there"},
        mended=True,
    ),
    Case(
        "weights in MLflow flipped",
        lambda places: flipped(registry.fetch("tokenizer@production") / "model.safetensors"),
        {"load": f"{WEIGHTS} was changed: expected sha256", "doctor --deep": f"files of tokenizer v3 .*{WEIGHTS} was"},
    ),
    Case(
        "configuration in MLflow cut",
        lambda places: cut(registry.fetch("tokenizer@production") / "config.json"),
        {
            "load": r"config\.json was changed: expected sha256",
            "doctor --deep": r"files of tokenizer v3 .*config\.json",
        },
    ),
    Case(
        "weights in MLflow gone",
        lambda places: gone(registry.fetch("tokenizer@production") / "model.safetensors"),
        {"load": f"{WEIGHTS} was changed: .*no such file", "doctor --deep": f"files of tokenizer v3 .*{WEIGHTS}"},
    ),
    Case(
        "the weights' digest in MLflow's registry changed",
        lambda places: places.mlflow().set_model_version_tag("tokenizer", "3", "weights", "0" * 64),
        {"load": f"{WEIGHTS} was changed: expected sha256 0000", "doctor": "tag weights of tokenizer v3 is 0000"},
        mended=True,
    ),
    Case(
        "the configuration's digest in MLflow's registry gone",
        lambda places: places.mlflow().delete_model_version_tag("tokenizer", "3", "config"),
        {"doctor": "tag config of tokenizer v3 is not there"},
        mended=True,
    ),
    Case(
        "weights in MLflow and their digest, both changed",
        weights_and_tag,
        {
            "doctor": "tag weights of tokenizer v3 is",
            "doctor --deep --repair": "repaired  MLflow: tag weights",
            "load": "was",
        },
    ),
    Case(
        "the alias of production moved",
        lambda places: places.mlflow().set_registered_model_alias("tokenizer", "production", "2"),
        {"doctor": "tokenizer@production is v2, should be v3"},
        mended=True,
    ),
    Case(
        "the alias of production gone",
        lambda places: places.mlflow().delete_registered_model_alias("tokenizer", "production"),
        {"doctor": "tokenizer@production is not set, should be v3", "load": "no version or alias 'production'"},
        mended=True,
    ),
    Case(
        "the newest assignment in git gone",
        lambda places: git(places.settings.root, "tag", "-d", assignment(places)),
        {"doctor": "git: tokenizer#production is at .*, should be at"},
        mended=True,
    ),
    Case(
        "one more assignment in git, to the older version",
        lambda places: git(
            places.settings.root, "tag", "-a", "-m", "x", "tokenizer#production#9", "tokenizer@v1.0.0^{}"
        ),
        {"doctor": "git: tokenizer#production is at .*, should be at"},
        mended=True,
    ),
    Case(
        "weights in DVC's cache flipped",
        lambda places: flipped(cache_file(places, "tokenizer", "model.safetensors")),
        {
            "plan": f"{WEIGHTS} .* is damaged: expected md5 .*, found",
            "promote": f"artifacts/tokenizer/model/{WEIGHTS} .* is damaged: expected md5 .*remint doctor --repair",
            "doctor": f"cache: .*tokenizer/model/{WEIGHTS}",
        },
        mended=True,
    ),
    Case(
        "a configuration in DVC's cache flipped behind its time of change",
        lambda places: unseen(cache_file(places, "maskgit", "config.json")),
        {"promote": r"config\.json .* is damaged: expected md5", "doctor --deep": r"cache: .*config\.json is damaged"},
        mended=True,
    ),
    Case(
        "the list of a model's files in DVC's cache flipped",
        lambda places: flipped(cache_file(places, "tokenizer", "")),
        {"plan": "artifacts/tokenizer/model/ .* is damaged", "promote": "artifacts/tokenizer/model/ .* is damaged"},
        mended=True,
    ),
    Case(
        "weights in DVC's cache flipped and made writable",
        lambda places: [flipped(path := cache_file(places, "tokenizer", "model.safetensors")), path.chmod(0o666)],
        {"promote": "artifacts/tokenizer/model.*(is damaged|not in DVC's cache)"},
        mended=True,
    ),
    Case(
        "weights in DVC's cache gone",
        lambda places: gone(cache_file(places, "tokenizer", "model.safetensors")),
        {"plan": "its outputs are not in the cache", "promote": "artifacts/tokenizer/model not in DVC's cache here"},
        mended=True,
    ),
    Case(
        "a shard of scenes in DVC's cache flipped",
        lambda places: flipped(cache_file(places, "scenes", "scenes-00000.tar")),
        {"plan": r"scenes-00000\.tar .* is damaged: expected md5", "doctor --deep": r"cache: .*scenes-00000\.tar"},
        mended=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_what_was_tampered_with_is_named_and_does_not_get_into_production(places, case):
    before = production(places)
    newest = [pointers.newest(places.bucket, family) for family in ("images", "depth")]
    pull(places.bucket, "images", None, Path("../elsewhere"))
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
