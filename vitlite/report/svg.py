"""The report's charts as inline SVG text; colours come from the page's style sheet through class names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

BINS = 48
LOG_RATIO = 8  # positive scores whose ends lie further apart than this are drawn on a logarithmic axis
# Histogram: heights in CSS pixels, widths in percent, so that it fits any page with text of one size.
BASE, REACH, BOTTOM, HEIGHT = 96, 84, 186, 206
# Chart: the box of the curves inside a drawing of 320 by 300 units.
LEFT, TOP, WIDTH, TALL = 44, 10, 264, 246


@dataclass(frozen=True)
class Axis:
    """A score axis from ``low`` to ``high``, both finite and low < high; ``log`` needs low > 0."""

    low: float
    high: float
    log: bool = False

    def position(self, score: float) -> float:
        """The place of a score on the axis, 0 to 1 from left to right, clipped."""
        score = min(max(score, self.low), self.high)
        if self.log:
            return math.log(score / self.low) / math.log(self.high / self.low)
        return (score - self.low) / (self.high - self.low)


def score_axis(scores: Sequence[float], thresholds: Sequence[float]) -> Axis:
    """An axis that shows all scores and thresholds, with a little room at both ends."""
    values = np.array([*scores, *thresholds], np.float64)
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > LOG_RATIO * low:
        return Axis(low / 1.1, high * 1.1, True)
    room = 0.03 * (high - low) or max(abs(high) * 0.03, 1e-6)
    return Axis(low - room, high + room)


def ticks(axis: Axis) -> list[float]:
    """Round numbers on the axis, about six."""
    if axis.log:
        first, last = math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high))
        every = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
        inside = [t for t in every if axis.low <= t <= axis.high]
        return inside[:: math.ceil(len(inside) / 7)] if inside else []
    raw = (axis.high - axis.low) / 6
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw)
    first, last = math.ceil(axis.low / step), math.floor(axis.high / step)
    return [n * step for n in range(first, last + 1)]


def histogram(
    good: Sequence[float], defective: Sequence[float], axis: Axis, threshold: float, title: str, group: int
) -> str:
    """Good images upwards, defective ones downwards, each with the tallest bar at full height.

    The line that the page moves has class ``line`` and stands at ``threshold``; the dashed one stays there. ``group``
    is put into ``data-category``.
    """
    parts = [
        f'<svg class="hist" data-category="{group}" width="100%" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">'
    ]
    for name, word, scores in (("good", "good", good), ("defect", "defective", defective)):
        counts, _ = np.histogram([axis.position(score) for score in scores], bins=BINS, range=(0, 1))
        for k in np.flatnonzero(counts):
            tall = max(2.0, REACH * counts[k] / counts.max())
            y = BASE - tall if name == "good" else BASE
            parts.append(
                f'<rect class="{name}" x="{100 * k / BINS:.2f}%" y="{y:.1f}" width="{96 / BINS:.2f}%" '
                f'height="{tall:.1f}"><title>{counts[k]} {word}</title></rect>'
            )
    parts += [line("axis", "0", "100%", y, y) for y in (BASE, BOTTOM)]
    for value in ticks(axis):
        place = axis.position(value)
        x = f"{100 * place:.2f}%"
        anchor = "start" if place < 0.04 else "end" if place > 0.96 else "middle"
        parts += [line("axis", x, x, BOTTOM, BOTTOM + 4), text(x, BOTTOM + 17, anchor, f"{value:.4g}")]
    x = f"{100 * axis.position(threshold):.3f}%"
    parts += [line(name, x, x, 4, BOTTOM) for name in ("calibrated", "line")]
    return "".join([*parts, "</svg>"])


def chart(
    title: str,
    x_label: str,
    y_label: str,
    lines: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    x_max: float = 1.0,
    point: tuple[str, float, float | None] | None = None,
    group: int = 0,
) -> str:
    """A square chart of curves (class name, x, y), x in [0, x_max] and y in [0, 1]; texts are plain.

    ``point`` is (kind, x, y) of the operating point, a circle that the page moves; y None: hidden. ``group`` is the
    category, for ``data-category``.
    """
    parts = [f'<svg class="chart" viewBox="0 0 320 300" role="img" aria-label="{escape(title)}">']
    for k in range(6):
        y = f"{TOP + TALL * (1 - k / 5):.1f}"
        parts += [line("grid", LEFT, LEFT + WIDTH, y, y), text(LEFT - 6, float(y) + 4, "end", f"{k / 5:.1f}")]
    steps = 5 if x_max == 1 else 3
    for k in range(steps + 1):
        x = f"{LEFT + WIDTH * k / steps:.1f}"
        parts += [line("grid", x, x, TOP, TOP + TALL), text(x, TOP + TALL + 16, "middle", f"{x_max * k / steps:.1f}")]
    for name, across, up in lines:
        places = zip(LEFT + np.asarray(across) / x_max * WIDTH, TOP + (1 - np.asarray(up)) * TALL)
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        parts.append(f'<path class="curve {name}" d="M{path}"/>')
    if point is not None:
        kind, share, height = point
        place = 'visibility="hidden"'
        if height is not None:
            place = f'cx="{LEFT + share * WIDTH:.1f}" cy="{TOP + (1 - height) * TALL:.1f}"'
        parts.append(f'<circle class="point" data-kind="{kind}" data-category="{group}" r="5" {place}/>')
    middle = TOP + TALL / 2
    parts.append(text(LEFT + WIDTH / 2, 296, "middle", x_label))
    parts.append(text(12, middle, "middle", y_label, f' transform="rotate(-90 12 {middle})"'))
    return "".join([*parts, "</svg>"])


def line(name: str, x1: object, x2: object, y1: object, y2: object) -> str:
    """A line element of a class."""
    return f'<line class="{name}" x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}"/>'


def text(x: object, y: object, anchor: str, words: str, turned: str = "") -> str:
    """A text element."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{turned}>{escape(words)}</text>'
