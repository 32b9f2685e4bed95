"""Classes of a set from the labels of its pictures, and which labels say none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from data.core.params import UserError
from data.pictures.given import Given

MOST = 100_000  # classes that labels without names may count


@dataclass(frozen=True)
class Classes:
    """The classes' names in the order of their indices; `indexed` labels are numbers by nature, not names."""

    names: tuple[str, ...]
    indexed: bool = True

    @cached_property
    def positions(self) -> dict[str, int]:
        """Index by name."""
        return {name: index for index, name in enumerate(self.names)}

    def index(self, label: int | str | None) -> int:
        """The class of a label, -1 for none; LookupError says why there is none such."""
        if label is None:
            return -1
        if isinstance(label, int) and self.indexed:
            if 0 <= label < len(self.names):
                return label
            raise LookupError(f"has label {label}, but the classes are 0 to {len(self.names) - 1}")
        if str(label) in self.positions:
            return self.positions[str(label)]
        raise LookupError(f"has label {label!r}, which is none of the {len(self.names)} classes")


def of(labels: Iterable[int | str | None], names: Sequence[str] | None, where: str) -> Classes:
    """The classes of a set: the names that came with it, else those that the labels have.

    Whole numbers alone are indices; beside names they are names too.
    """
    said = set(labels) - {None}
    numbers = [one for one in said if isinstance(one, int)]
    if names is not None:
        found = Classes(tuple(names))
    elif len(numbers) == len(said):
        found = Classes(tuple(str(i) for i in range(max((n for n in numbers if n < MOST), default=-1) + 1)))
    else:
        found = Classes(tuple(sorted(str(one) for one in said)), indexed=False)
    folded: dict[str, str] = {}
    for name in found.names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise UserError(f"{where}: classes {other!r} and {name!r} differ only in case; rename or merge one of them")
    return found


def labelled(pictures: Iterable[Given], known: Classes) -> tuple[list[Given], list[Given]]:
    """The pictures with indices for labels (-1 is none), and those whose label is none of the classes."""
    right, wrong = [], []
    for one in pictures:
        try:
            right.append(replace(one, label=known.index(one.label)))
        except LookupError as error:
            wrong.append(replace(one, reason=str(error)))
    return right, wrong
