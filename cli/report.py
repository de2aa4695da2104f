"""vitlite report."""

from pathlib import Path

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note


@click.command(name="report", epilog="Example: vitlite report runs/bottle --data mvtec --category bottle")
@options.run
@options.data
@options.category
@click.option("--out", metavar="FILE", help="The page to write.  [default: RUN/report.html]")
@options.mask_threshold
@options.max_megapixels
@options.device
@options.verbosity
def command(
    run: str,
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
    """
    from vitlite.engine.detector import Detector
    from vitlite.files import new_file, write_text
    from vitlite.report.build import build_report
    from vitlite.report.page import render

    path = new_file(out) if out else None
    detector = Detector(run, device, max_megapixels=max_megapixels)
    path = path or new_file(Path(run) / "report.html")
    page = render(build_report(detector, data=data, category=category, mask_threshold=mask_threshold))
    write_text(path, page)
    note(f"written: {path} ({len(page.encode()) / 1e6:.1f} MB)")
