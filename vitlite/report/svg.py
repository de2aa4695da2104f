"""The report's charts as inline SVG text; colours come from the page's style sheet through class names."""

import math
from dataclasses import dataclass
from html import escape

import numpy as np

BINS = 48
LOG_RATIO = 8  # positive scores whose ends lie further apart than this are drawn on a logarithmic axis
# Histogram, in CSS pixels down; across everything is in percent, so that it fits any width with text of one size.
BASE, REACH, BOTTOM, HEIGHT = 96, 84, 186, 206
# Curves: the plot's box inside a drawing of 320 by 300 units.
LEFT, TOP, WIDTH, TALL = 44, 10, 264, 246


@dataclass(frozen=True)
class Axis:
    """A score axis from ``low`` to ``high``, both finite and low < high; ``log`` needs low > 0."""

    low: float
    high: float
    log: bool = False

    def position(self, score):
        """Where a score lies, 0 to 1 from left to right, clipped."""
        if self.log:
            if score <= 0:
                return 0.0
            share = math.log(score / self.low) / math.log(self.high / self.low)
        else:
            share = (score - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0)


def score_axis(scores, thresholds):
    """An axis that shows all scores and thresholds, with a little room at both ends."""
    values = np.array([*scores, *thresholds], np.float64)
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > LOG_RATIO * low:
        return Axis(low / 1.1, high * 1.1, True)
    room = 0.03 * (high - low) or max(abs(high) * 0.03, 1e-6)
    return Axis(low - room, high + room)


def ticks(axis):
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


def histogram(good, defective, axis, threshold, title, group):
    """Good images upwards, defective ones downwards, each with the tallest bar at full height.

    The line that the page moves has class ``line`` and stands at ``threshold``; the dashed one stays there. ``group``
    is put into ``data-category``.
    """
    parts = [
        f'<svg class="hist" data-category="{group}" width="100%" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">'
    ]
    for name, scores, direction in (("good", good, -1), ("defect", defective, 1)):
        positions = [axis.position(s) for s in scores]
        counts, _ = np.histogram(positions, bins=BINS, range=(0, 1))
        for k in np.flatnonzero(counts):
            tall = max(2.0, REACH * counts[k] / counts.max())
            y = BASE - tall if direction < 0 else BASE
            label = f"{counts[k]} {'good' if name == 'good' else 'defective'}"
            parts.append(
                f'<rect class="{name}" x="{100 * k / BINS:.2f}%" y="{y:.1f}" width="{96 / BINS:.2f}%" '
                f'height="{tall:.1f}"><title>{label}</title></rect>'
            )
    parts.append(f'<line class="axis" x1="0" x2="100%" y1="{BASE}" y2="{BASE}"/>')
    parts.append(f'<line class="axis" x1="0" x2="100%" y1="{BOTTOM}" y2="{BOTTOM}"/>')
    for value in ticks(axis):
        x = f"{100 * axis.position(value):.2f}%"
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{BOTTOM}" y2="{BOTTOM + 4}"/>')
        anchor = "start" if axis.position(value) < 0.04 else "end" if axis.position(value) > 0.96 else "middle"
        parts.append(f'<text x="{x}" y="{BOTTOM + 17}" text-anchor="{anchor}">{value:.4g}</text>')
    x = f"{100 * axis.position(threshold):.3f}%"
    for name in ("calibrated", "line"):
        parts.append(f'<line class="{name}" x1="{x}" x2="{x}" y1="4" y2="{BOTTOM}"/>')
    parts.append("</svg>")
    return "".join(parts)


def chart(title, x_label, y_label, lines, *, x_max=1.0, point=None, group=0):
    """A square chart of curves whose y runs from 0 to 1.

    Args:
        title, x_label, y_label: plain text.
        lines: list of (class name, x, y), x in [0, x_max], y in [0, 1].
        point: (kind, x, y) of the operating point, a circle that the page moves; x or y None: hidden.
        group: the category, for ``data-category``.
    """
    parts = [f'<svg class="chart" viewBox="0 0 320 300" role="img" aria-label="{escape(title)}">', grid(x_max)]
    for name, x, y in lines:
        pairs = zip(LEFT + np.asarray(x) / x_max * WIDTH, TOP + (1 - np.asarray(y)) * TALL)
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in pairs)
        parts.append(f'<path class="curve {name}" d="M{path}"/>')
    if point is not None:
        kind, x, y = point
        known = x is not None and y is not None
        place = f'cx="{LEFT + x * WIDTH:.1f}" cy="{TOP + (1 - y) * TALL:.1f}"' if known else 'visibility="hidden"'
        parts.append(f'<circle class="point" data-kind="{kind}" data-category="{group}" r="5" {place}/>')
    parts.append(f'<text x="{LEFT + WIDTH / 2}" y="296" text-anchor="middle">{escape(x_label)}</text>')
    middle = TOP + TALL / 2
    parts.append(
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{escape(y_label)}</text>'
    )
    parts.append("</svg>")
    return "".join(parts)


def grid(x_max):
    """Grid lines and numbers at every fifth of y and at five or six places of x."""
    parts = []
    for k in range(6):
        y = TOP + TALL * (1 - k / 5)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{k / 5:.1f}</text>')
    steps = 5 if x_max == 1 else 3
    for k in range(steps + 1):
        x = LEFT + WIDTH * k / steps
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + TALL}"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + TALL + 16}" text-anchor="middle">{x_max * k / steps:.1f}</text>')
    return "".join(parts)
