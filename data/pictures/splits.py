"""Training and held-out pictures: by a hash of the original, and never near-duplicates on both sides.

Pictures whose difference hashes differ in at most `NEAR` bits of 64, directly or through others, form a group and
share a side. Two hashes that near agree in at least one of `NEAR` + 1 parts, so only such pairs are compared.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict

import numpy as np

from data.core import manifest
from data.core.params import UserError

NEAR = 3  # bits
BITS = 64


def groups(hashes: list[str]) -> list[int]:
    """For each difference hash (16 hex digits) the index of the first one in its group."""
    values, of_value = np.unique(np.array([int(one, 16) for one in hashes], np.uint64), return_inverse=True)
    above = list(range(len(values)))

    def root(i: int) -> int:
        while above[i] != i:
            above[i] = above[above[i]]
            i = above[i]
        return i

    width = BITS // (NEAR + 1)
    for part in range(NEAR + 1):
        pieces = (values >> np.uint64(part * width)) & np.uint64((1 << width) - 1)
        order = np.argsort(pieces, kind="stable")
        for same in np.split(order, np.flatnonzero(np.diff(pieces[order])) + 1):
            for place, i in enumerate(same[:-1]):
                others = same[place + 1 :]
                for j in others[np.bitwise_count(values[others] ^ values[i]) <= NEAR]:
                    above[root(int(j))] = root(int(i))
    first: dict[int, int] = {}
    return [first.setdefault(root(int(value)), index) for index, value in enumerate(of_value)]


def of(keys: list[str], labels: list[int], hashes: list[str], held_out_share: float) -> list[str]:
    """ "train" or "val" for each picture. Each class has one to train on, and both sides have some; UserError where all
    pictures are near-duplicates of each other, or there is only one."""
    group = groups(hashes)
    members: dict[int, list[int]] = defaultdict(list)
    for index, one in enumerate(group):
        members[one].append(index)
    if len(members) < 2:
        raise UserError(
            f"at least two different pictures are needed, one to train on and one to hold out; {len(keys)} are given, "
            "all near-duplicates of each other"
        )
    name = {one: min(keys[i] for i in inside) for one, inside in members.items()}
    side = {one: manifest.split_of(name[one], held_out_share) for one in members}
    by_draw = sorted(members, key=lambda one: hashlib.sha256(name[one].encode()).digest())  # as split_of draws
    learnt = {labels[i] for one, inside in members.items() if side[one] == "train" for i in inside}
    for one in reversed(by_draw):
        if missing := {labels[i] for i in members[one]} - learnt - {-1}:
            side[one] = "train"
            learnt |= missing
    for wanted, first in (("val", by_draw), ("train", by_draw[::-1])):
        if wanted not in side.values():
            side[_spare(first, members, labels)] = wanted
    return [side[one] for one in group]


def _spare(order: list[int], members: dict[int, list[int]], labels: list[int]) -> int:
    """The first group that is not all of a class, else the first."""
    whole = Counter(labels)
    for one in order:
        own = Counter(labels[i] for i in members[one])
        if all(own[label] < whole[label] for label in own if label >= 0):
            return one
    return order[0]
