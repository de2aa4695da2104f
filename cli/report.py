"""vitlite report."""

from pathlib import Path

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note


@click.command(name="report", epilog="Example: vitlite report runs/bottle --data mvtec --category bottle")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@options.data
@options.category
@click.option("--out", metavar="FILE", help="The page to write.  [default: RUN/report.html; of several runs: none]")
@options.mask_threshold
@options.max_megapixels
@options.device
@options.verbosity
def command(
    runs: tuple[str, ...],
    data: str | None,
    category: str | None,
    out: str | None,
    mask_threshold: int | None,
    max_megapixels: float,
    device: str,
) -> None:
    """Write a page with scores, curves and heat maps of labelled test images.

    The page is one HTML file that opens in any browser without a network. It shows metrics, score histograms, curves,
    and the worst mistakes with their heat maps. The threshold can be moved, and the command that sets it be copied.

    Several runs, trained on the same data or with --data, are compared: a table of figures, and images of each kind of
    defect beside the heat map, the verdict and the score of each run. Their choice depends on no score.
    """
    from vitlite.engine.detector import Detector
    from vitlite.errors import UserError
    from vitlite.files import new_file, write_text
    from vitlite.report.build import build_report
    from vitlite.report.compare import compare, render_comparison
    from vitlite.report.page import render

    if len(runs) > 1 and out is None:
        raise UserError("`out`: missing; name the page that compares these runs")
    path = new_file(out) if out else None
    detectors = [Detector(run, device, max_megapixels=max_megapixels) for run in runs]
    path = path or new_file(Path(runs[0]) / "report.html")
    if len(runs) > 1:
        found = compare(detectors, data=data, category=category, mask_threshold=mask_threshold)
        page = render_comparison(found)
    else:
        page = render(build_report(detectors[0], data=data, category=category, mask_threshold=mask_threshold))
    write_text(path, page)
    note(f"written: {path} ({len(page.encode()) / 1e6:.1f} MB)")
