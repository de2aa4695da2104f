"""Plots of measured figures as points, by matplotlib."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from vitlite.errors import UserError
from vitlite.files import refuse_unwritable

Point = tuple[float, float, str]  # x, y, and the name beside it, which may be empty


def scatter(
    series: Mapping[str, Sequence[Point]],
    path: Path,
    *,
    across: str,
    up: str,
    title: str = "",
    means: bool = False,
    beside: Mapping[str, Sequence[Point]] | None = None,
) -> None:
    """Draw a colour for each of some series, and the legend that names it; the axis ``across`` is logarithmic.

    ``means`` adds the mean of each series as a cross. ``beside`` has points, by the name of a series, that are drawn
    hollow in its colour: a paper's. Raises ``UserError`` without matplotlib, or if it does not know the ending of
    ``path``.
    """
    refuse_plot(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", xlabel=across, ylabel=up, title=title)
    axes.margins(x=0.12)  # for the names beside the points
    for number, (label, points) in enumerate(series.items()):
        x, y, names = zip(*points)
        colour = f"C{number % 10}"
        axes.scatter(x, y, label=label, alpha=0.6, color=colour)
        if means:
            axes.scatter(statistics.mean(x), statistics.mean(y), marker="P", s=120, color=colour, alpha=0.6)
        for at, name in zip(zip(x, y), names):
            axes.annotate(name, at, xytext=(6, 4), textcoords="offset points", fontsize=8)
        for place, height, _ in (beside or {}).get(label, ()):
            axes.scatter(place, height, s=60, facecolors="none", edgecolors=colour)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    shown = [x for points in series.values() for x, *_ in points]
    if shown and max(shown) < 10 * min(shown):  # hardly a power of ten: name the ticks between
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def refuse_plot(path: Path) -> None:
    """``UserError`` without matplotlib, if it does not know the ending of ``path``, or if that cannot be written."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise UserError(f"`plot={path}`: needs matplotlib: pip install matplotlib") from None
    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise UserError(f"`plot={path}`: its ending must be one of {', '.join(sorted(known))}")
    refuse_unwritable(path.parent, "plot")
    if path.is_dir():
        raise UserError(f"`plot={path}`: is a folder; name the file")
