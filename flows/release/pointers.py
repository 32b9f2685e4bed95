"""The log of releases: numbered objects in the bucket, written once and never again.

    releases/images/000001.json, 000002.json, ...

The highest number is what is in production. Each pointer holds the digest of the one before it, so the order cannot
be rewritten unseen; writing it is the one moment at which a release becomes real (`flows.release.promote`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from data.core.params import UserError, build
from flows.storage.protocol import Bucket, NotThere

FORMAT = 1  # of the JSON; a reader refuses a newer one
READERS = 16  # pointers read at once
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # of a family or a model: also a folder's name
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Member:
    """One model of a release, by digest."""

    model: str  # "tokenizer"
    version: int  # in MLflow's registry
    weights: str  # sha256 of model.safetensors
    tag: str  # in git: "tokenizer@v3.0.0"
    bundle: str  # sha256 of its manifest.json, which is also its prefix: bundles/<model>/<bundle>/

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.model):
            raise ValueError(f"{self.model!r} is no name of a model")
        if not DIGEST.fullmatch(self.weights) or not DIGEST.fullmatch(self.bundle):
            raise ValueError(f"{self.model}: weights and bundle must be SHA-256 digests")

    @property
    def identity(self) -> tuple[str, int, str]:
        """What tells models apart: the same weights with another tokenizer or sampler are another version."""
        return self.model, self.version, self.weights


@dataclass(frozen=True)
class Pointer:
    """One release of a family. A rollback is a new pointer with the members of an older one."""

    family: str  # "images", "depth"
    number: int  # 1, 2, ...
    members: tuple[Member, ...]  # sorted by model
    run: str  # the run whose models they are
    commit: str  # its commit
    who: str
    why: str
    at: str  # ISO time, for people: order is by number
    previous: str  # sha256 of the pointer before, "" for the first
    restores: int | None = None  # a rollback: the release whose members stand again
    procedure: str = ""  # id of the procedure that wrote it: tells two writers of one release apart

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.family):
            raise ValueError(f"{self.family!r} is no name of a family")
        if self.number < 1 or (self.number == 1) != (self.previous == ""):
            raise ValueError(f"release {self.number} must be at least 1 and, but for the first, name the one before")
        names = [member.model for member in self.members]
        if not names or names != sorted(set(names)):
            raise ValueError("a release holds each of its models once, sorted by name")


def newest(bucket: Bucket, family: str) -> Pointer | None:
    """What is in production, None before the first release. Lists the log and reads its last pointer alone."""
    count = _count(bucket, family)
    return read(bucket, family, count) if count else None


def read(bucket: Bucket, family: str, number: int) -> Pointer:
    """One release by its number; UserError names it if it is not there or was changed by hand."""
    where = f"{bucket.name}/{key(family, number)}"
    try:
        pointer = parse(bucket.read(key(family, number)), where)
    except NotThere:
        last = _count(bucket, family)
        there = f"the newest is {family}@{last}" if last else "there is none yet"
        raise UserError(f"{bucket.name} has no release {number} of {family}; {there}") from None
    if (pointer.family, pointer.number) != (family, number):
        raise UserError(
            f"{where} says that it is {pointer.family}@{pointer.number}; it was changed or moved. Restore it"
        )
    return pointer


def log(bucket: Bucket, family: str, first: int = 1) -> list[Pointer]:
    """All releases in their order, the chain of digests verified; UserError names the first broken link.

    first: the number to begin with.
    """
    count = _count(bucket, family)
    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(lambda number: read(bucket, family, number), range(first, count + 1)))
    for before, after in itertools.pairwise(found):
        if digest(before) != after.previous:
            raise UserError(
                f"{bucket.name}: release {after.number} of {family} follows a release {before.number} of digest "
                f"{after.previous}, but that one has {digest(before)}: one of the two was changed. "
                "Restore it from a copy of the bucket, then: remint doctor"
            )
    return found


def append(bucket: Bucket, pointer: Pointer) -> None:
    """Make the release real: it is in production when this returns. Taken if its number already stands."""
    if pointer.number > 1:
        before = digest(read(bucket, pointer.family, pointer.number - 1))
        if before != pointer.previous:
            raise UserError(
                f"release {pointer.number} of {pointer.family} was made to follow a release of digest "
                f"{pointer.previous}, but release {pointer.number - 1} has {before}; promote again"
            )
    bucket.create(key(pointer.family, pointer.number), text(pointer).encode())


def families(bucket: Bucket) -> list[str]:
    """The families that have been released."""
    return sorted({key.split("/")[1] for key in bucket.list("releases/")})


def text(value: Any) -> str:
    """A pointer or a bundle's manifest as it lies in the bucket: the same values always give the same bytes."""
    return json.dumps({"format": FORMAT, **asdict(value)}, indent=1, sort_keys=True) + "\n"


def digest(value: Any) -> str:
    """SHA-256 of its text: a pointer's is what the next one names as `previous`, a manifest's the bundle's name."""
    return hashlib.sha256(text(value).encode()).hexdigest()


def values(raw: bytes, where: str, what: str) -> dict[str, Any]:
    """The values of a `text`; UserError if these bytes are not `what`, or of a newer format."""
    try:
        found = json.loads(raw, parse_constant=_no_number)
        newer = found.pop("format") > FORMAT
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{where} is not {what}. Restore it from a copy of the bucket") from None
    if newer:
        raise UserError(f"{where} was written by a newer version of Remint; update this one")
    return found


def parse(raw: bytes, where: str) -> Pointer:
    """The pointer in these bytes; UserError if they are not exactly what `text` writes."""
    pointer = build(Pointer, values(raw, where, "a release's pointer; it was changed or damaged"), where)
    if text(pointer).encode() != raw:
        raise UserError(f"{where} was changed: it is not as Remint writes it. Restore it from a copy of the bucket")
    return pointer


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not a number")


def key(family: str, number: int) -> str:
    """Where a release's pointer lies in the bucket."""
    return f"releases/{family}/{number:06d}.json"


def _count(bucket: Bucket, family: str) -> int:
    """How many releases there are; UserError names a number that is missing or an object that is none."""
    if not NAME.fullmatch(family):
        raise UserError(f"{family!r} is no name of a family")
    there = set(bucket.list(f"releases/{family}/"))
    for number in range(1, len(there) + 1):
        if key(family, number) not in there:
            raise UserError(
                f"{bucket.name}: release {number} of {family} is missing, though there are {len(there)} objects in "
                "its log. Restore it from a copy of the bucket, then: remint doctor"
            )
    return len(there)


def changes(before: Pointer | None, after: Pointer) -> str:
    """The members of a release; of those that changed both versions: "maskgit v2, tokenizer v1 -> v2"."""
    old = {member.model: member for member in before.members} if before else {}
    words = []
    for member in after.members:
        was = old.pop(member.model, None)
        old_version = f"v{was.version} -> " if was and was.identity != member.identity else ""
        words.append(f"{member.model} {old_version}v{member.version}")
    return ", ".join([*words, *(f"without {name}" for name in old)])


@dataclass(frozen=True)
class Aliases:
    """What the log says of one model: the version in production, and the one that stood before it."""

    production: Member | None
    previous: Member | None


def aliases(log: Sequence[Pointer]) -> dict[str, Aliases]:
    """Every model that was ever released with the family; one that left it has no version in production."""
    found = {}
    for name in sorted({member.model for pointer in log for member in pointer.members}):
        line = [next((m for m in pointer.members if m.model == name), None) for pointer in log]
        now = line[-1]
        before = [m for m in line[:-1] if m is not None and (now is None or m.identity != now.identity)]
        found[name] = Aliases(now, before[-1] if before else None)
    return found


def title(pointer: Pointer) -> str:
    """A release as people call it: "images #3"."""
    return f"{pointer.family} #{pointer.number}"
