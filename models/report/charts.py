"""Training curves as small SVG drawings: axes, a log scale where it helps, labels at the lines' ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 400, 220
LEFT, RIGHT, TOP, BOTTOM = 50, 98, 14, 34  # room for tick labels and for the names at the lines' ends
LABEL_GAP = 15  # least distance of two labels, in drawing units
POINTS = 240  # a line of more points than this looks the same and weighs more
NOISY = 30  # a line of more points than this is a per-step one: it is also drawn smoothed
LOG_SPAN = 4.0  # what falls by more than this factor is drawn on a log scale

Place = Callable[[float], float]  # from a value to its place in the drawing


@dataclass(frozen=True)
class Series:
    """One line: its name and its points, by rising step."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """One drawing: the series share a unit, so they share the vertical axis."""

    title: str
    series: tuple[Series, ...]


def charts_of(rows: Sequence[dict[str, str]]) -> list[Chart]:
    """Group the columns of a curves.csv: `train_loss` and `val_loss` become one chart named `loss`.

    Cells that are empty or not finite are left out. A column of one point (a validation at the end) is a dot beside
    another's line, and is left out where it would be alone.
    """
    columns = [name for name in (rows[0] if rows else {}) if name != "step"]
    groups: dict[str, list[Series]] = {}
    for column in columns:
        points = [(float(row["step"]), float(row[column])) for row in rows if row[column] not in ("", None)]
        points = [point for point in points if math.isfinite(point[1])]
        if not points:
            continue
        part, _, base = column.partition("_")
        title, name = (base, part) if base and part in ("train", "val") else (column, column)
        steps, values = zip(*points, strict=True)
        groups.setdefault(title, []).append(Series(name, steps, values))
    drawn = {title: series for title, series in groups.items() if max(len(one.steps) for one in series) > 1}
    return [Chart(title, tuple(series)) for title, series in drawn.items()]


def draw(chart: Chart) -> Markup:
    """Draw a chart as an SVG element that takes its colours from the page (`--series-0` ...).

    A line of many points is drawn twice: as it is, faintly, and smoothed; its label names the smoothed end.
    """
    thin = [_thin(series) for series in chart.series]
    smooth = [_smooth(line) if len(line.values) > NOISY else line for line in thin]
    low, high, log = _range(thin)
    first = min(line.steps[0] for line in thin)
    last = max(line.steps[-1] for line in thin)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / ((last - first) or 1.0)

    def y(value: float) -> float:
        a, b, v = (math.log(low), math.log(high), math.log(max(value, low))) if log else (low, high, value)
        share = min(max((v - a) / ((b - a) or 1.0), 0.0), 1.0)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [_axes(first, last, low, high, log, x, y)]
    parts += [_path(line, x, y, f"raw s{i % 4}") for i, line in enumerate(thin) if len(line.values) > NOISY]
    parts += [_path(line, x, y, f"line s{i % 4}") for i, line in enumerate(smooth)]
    parts += [_end_labels(chart.title, smooth, x, y)]
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, describe(chart), Markup("").join(parts)
    )


def describe(chart: Chart) -> str:
    """Say a chart in one sentence, for readers who cannot see it."""
    lines = [f"{s.name} from {number(s.values[0])} to {number(s.values[-1])}" for s in chart.series]
    return f"{chart.title.replace('_', ' ')} by training step: {', '.join(lines)}"


def number(value: float) -> str:
    """Write a number with three significant digits, four above 10, and no exponent where a reader can do without."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if value == 0 or (size < 1e5 and size == int(size)):
        return str(int(value))
    if size >= 1e5 or size < 1e-4:
        return _short(float(f"{value:.2e}"))
    return f"{value:.{max(0, min(3, 2 - math.floor(math.log10(size)) + (size >= 1))) if size >= 0.1 else 4}f}"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round positions that lie between two values: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    start = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(start, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round positions on a log scale: powers of ten, with 2 and 5 between them while they are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 2.2 else (1,)
    marks = [f * 10.0**d for d in decades for f in factors]
    return [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]


def _range(lines: Sequence[Series]) -> tuple[float, float, bool]:
    """Choose the vertical range and whether it is a log scale: where all is positive and falls a long way."""
    values = [value for line in lines for value in _robust(line.values)]
    low, high = min(values), max(values)
    falls = all(line.values[-1] < line.values[0] for line in lines if len(line.values) > 1)
    if low > 0 and high / low > LOG_SPAN and falls:
        return low * 0.9, high * 1.1, True
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad, False
    margin = 0.06 * (high - low)
    return (0.0 if 0 <= low < margin else low - margin), high + margin, False


def _robust(values: Sequence[float]) -> list[float]:
    """Leave out the highest hundredth: the first step of a training would set the scale for all others."""
    return sorted(values)[: math.ceil(len(values) * 0.99)]


def _thin(series: Series) -> Series:
    """Average neighbouring points until at most POINTS are left."""
    size = math.ceil(len(series.values) / POINTS)
    if size <= 1:
        return series
    starts = range(0, len(series.values), size)
    mean = [sum(v := series.values[i : i + size]) / len(v) for i in starts]
    return Series(series.name, tuple(series.steps[min(i + size, len(series.steps)) - 1] for i in starts), tuple(mean))


def _smooth(line: Series) -> Series:
    """Mean over a sliding window of a fifteenth of the line; at the start it grows, so that the start stays."""
    reach = max(1, len(line.values) // 30)
    windows = [line.values[i - min(i, reach) : i + min(i, reach) + 1] for i in range(len(line.values))]
    return Series(line.name, line.steps, tuple(sum(window) / len(window) for window in windows))


def _path(line: Series, x: Place, y: Place, kind: str) -> Markup:
    points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(line.steps, line.values, strict=True))
    return Markup('<polyline class="{}" points="{}"/>').format(kind, points)


def _axes(first: float, last: float, low: float, high: float, log: bool, x: Place, y: Place) -> Markup:
    """Draw horizontal rules with their values, the step axis, and the axes' names."""
    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM
    out = []
    for tick in log_ticks(low, high) if log else ticks(low, high):
        out.append(f'<line class="rule" x1="{LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 7}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{_short(tick)}</text>')
    for tick in ticks(first, last, 4):
        out.append(f'<text class="tick" x="{x(tick):.1f}" y="{base + 15}" text-anchor="middle">{_short(tick)}</text>')
    out.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    out.append(f'<text class="tick" x="{(LEFT + right) / 2}" y="{HEIGHT - 3}" text-anchor="middle">step</text>')
    if log:
        out.append(f'<text class="tick" x="{LEFT}" y="8">log scale</text>')
    return Markup("".join(out))  # numbers only: nothing here came from a file's text


def _end_labels(title: str, lines: Sequence[Series], x: Place, y: Place) -> Markup:
    """Name each line where it ends, with its last value; labels that would touch are moved apart."""
    order = sorted(range(len(lines)), key=lambda i: y(lines[i].values[-1]))
    places: list[float] = []
    for i in order:
        places.append(max(y(lines[i].values[-1]), places[-1] + LABEL_GAP if places else 0.0))
    up = max(0.0, places[-1] - (HEIGHT - BOTTOM - 4))
    out = []
    for i, place in zip(order, places, strict=True):
        line = lines[i]
        name = "" if line.name == title else f"{line.name} "
        end_x, end_y, left = x(line.steps[-1]), y(line.values[-1]), WIDTH - RIGHT + 9
        out.append(
            Markup(
                '<circle class="dot s{0}" cx="{1:.1f}" cy="{2:.1f}" r="2.6"/>'
                '<text class="end s{0}" x="{3}" y="{4:.1f}">{5}<tspan class="value">{6}</tspan></text>'
            ).format(i % 4, end_x, end_y, left, place - up + 4, name, number(line.values[-1]))
        )
    return Markup("").join(out)


def _short(value: float) -> str:
    """A round number as short as it can be written."""
    text = f"{value:.6g}"
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else text
