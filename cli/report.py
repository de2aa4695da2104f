"""vitlite report."""

from pathlib import Path
from typing import Any

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note


@click.command(name="report", epilog="Example: vitlite report runs/bottle --data mvtec --category bottle")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@options.data
@options.category
@click.option("--out", metavar="FILE", help="The page to write.  [default: RUN/report.html; of several runs: none]")
@click.option(
    "--render", is_flag=True, help="Show features and their reconstruction as images: trains a small decoder first."
)
@options.mask_threshold
@options.max_megapixels
@options.device
@options.verbosity
def command(
    runs: tuple[str, ...], out: str | None, render: bool, max_megapixels: float, device: str, **chosen: Any
) -> None:
    """Write a page with scores, curves and heat maps of labelled test images.

    The page is one HTML file that opens in any browser without a network. It shows metrics, score histograms, curves,
    and the worst mistakes with their heat maps. The threshold can be moved, and the command that sets it be copied.

    Several runs, trained on the same data or with --data, are compared: a table of figures, and images of each kind of
    defect beside the heat map, the verdict and the score of each run. Their choice depends on no score.

    --render, of sivt and dinomaly, trains a small decoder on the good images for a minute or two, which makes images of
    features: those of the image, and as the method reconstructs them.
    """
    from vitlite.engine.detector import Detector
    from vitlite.errors import UserError
    from vitlite.files import new_file, write_text
    from vitlite.report.build import build_report
    from vitlite.report.compare import compare, render_comparison
    from vitlite.report.page import render as page_of

    if len(runs) > 1 and out is None:
        raise UserError("`out`: missing; name the page that compares these runs")
    if len(runs) > 1 and render:
        raise UserError("--render: not with several runs; give one")
    path = new_file(out) if out else None
    if path is not None and path.exists() and path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"`out={path}`: is a file already, and no page; choose a name that ends with .html")
    detectors = [Detector(run, device, max_megapixels=max_megapixels) for run in runs]
    path = path or new_file(Path(runs[0]) / "report.html")
    if len(runs) > 1:
        page = render_comparison(compare(detectors, **chosen))
    else:
        page = page_of(build_report(detectors[0], render=render, **chosen))
    write_text(path, page)
    note(f"written: {path} ({len(page.encode()) / 1e6:.1f} MB)")
