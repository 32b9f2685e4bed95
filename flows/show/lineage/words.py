"""How digests, sizes, releases and parameters are written, in the terminal and on pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flows.show.lineage.values import Cost, Data, Lineage
from flows.stage.spending import duration


def short(digest: str) -> str:
    """Twelve digits: what a person compares."""
    return digest.removesuffix(".dir")[:12]


def around(surroundings: Mapping[str, str]) -> str:
    """ "python CPython 3.11.2, torch 2.13.0+cpu, requirements.lock 1f0c9a...": a digest is cut, a version is not."""
    return ", ".join(f"{name} {short(value) if len(value) == 64 else value}" for name, value in surroundings.items())


def size(count: int) -> str:
    unit, factor = next(((u, f) for u, f in (("GB", 1e9), ("MB", 1e6)) if count >= f), ("kB", 1e3))
    return f"{count / factor:.{0 if unit == 'kB' else 1}f} {unit}"


def extent(data: Data) -> str:
    """ "2,240 rows, 21.3 MB", "" where nobody counted."""
    return "" if data.rows is None or data.bytes is None else f"{data.rows:,} rows, {size(data.bytes)}"


def price(cost: Cost) -> str:
    """ "22 min of machines, 31 min of CPU time, 9 stages; not known of photos"."""
    used = cost.spent
    times = {"machines": used.seconds, "CPU time": used.cpu_seconds, "GPUs": used.gpu_seconds}
    known = len(cost.stages) - len(cost.unknown)
    said = [f"{duration(seconds)} of {what}" for what, seconds in times.items() if seconds]
    said.append(f"{known} stage{'s' * (known != 1)}")
    return ", ".join(said) + (f"; not known of {', '.join(cost.unknown)}" if cost.unknown else "")


def verdict(data: Data) -> str:
    return "not in the catalogue" if data.verdict == "unrecorded" else f"validation {data.verdict}"


def ranges(numbers: Iterable[int]) -> str:
    """ "1, 3-7" for 1, 3, 4, 5, 6, 7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def standing(lineage: Lineage) -> str:
    """Where a version stands: "in production, images release 4", "was in images releases 1-3", "never released"."""
    if lineage.now:
        return f"in production, {lineage.now.family} release {lineage.now.number}"
    if not lineage.releases:
        return "never released"
    numbers = [place.number for place in lineage.releases]
    return f"was in {lineage.releases[0].family} release{'s' * (len(numbers) > 1)} {ranges(numbers)}"


def setting(values: Mapping[str, Any]) -> str:
    """ "steps=1400, net.dim=128, net.taps=[0,2,3,4], seed=42": a value is never parted from its name."""
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    return f"[{','.join(map(_value, value))}]" if isinstance(value, list) else str(value)
