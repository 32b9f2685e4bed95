"""The log of releases: numbered objects in the bucket, written once and never again.

    releases/images/000001.json, 000002.json, ...

The highest number is what is in production. Each pointer holds the digest of the one before it, so the order cannot
be rewritten unseen; writing it is the one moment at which a release becomes real (`flows.release.promote`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """One model of a release, by digest."""

    model: str  # "tokenizer"
    version: int  # in MLflow's registry
    weights: str  # sha256 of model.safetensors
    tag: str  # in git: "tokenizer@v3.0.0"
    bundle: str  # sha256 of its manifest.json, which is also its prefix: bundles/<model>/<bundle>/


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
