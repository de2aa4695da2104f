"""``vitlite calibrate``: set the thresholds of a run anew from good images."""

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note


@click.command(name="calibrate", epilog="Example: vitlite calibrate runs/bottle --target-fpr 0.01 --good newer_good/")
@options.run
@click.option(
    "--target-fpr",
    type=float,
    default=0.01,
    show_default=True,
    help="The share of good images that may be called defective.",
)
@click.option(
    "--good",
    metavar="DIR|IMAGE",
    multiple=True,
    type=click.Path(),
    help="Good images that training has not seen: a folder, file or pattern; repeatable.  [default: those held out]",
)
@options.max_megapixels
@options.device
@options.verbosity
def command(run: str, target_fpr: float, good: tuple[str, ...], max_megapixels: float, device: str) -> None:
    """Set the thresholds of a trained detector from good images.

    Nothing is trained. By default the good images are those that training held out. --good takes others; more images
    make lower rates possible. Prints the rate of false alarms to expect and how uncertain it is, and rewrites
    calibration.json. In a run of several categories, an image given with --good belongs to the category that one of its
    folders is named after.
    """
    from vitlite.engine.calibrate import CALIBRATION_FILE, check_target, in_words, recalibrate, without_threshold
    from vitlite.engine.detector import Detector
    from vitlite.files import require_writable

    check_target(target_fpr)
    detector = Detector(run, device, calibrated=False, max_megapixels=max_megapixels)
    require_writable(run)
    result = recalibrate(detector, target_fpr=target_fpr, good=good)
    for line in (*in_words(result), *without_threshold(detector)):
        note(line)
    note(f"written: {run}/{CALIBRATION_FILE}")
