"""vitlite calibrate."""

import click

from vitlite.cli._messages import note, verbosity


@click.command(name="calibrate", epilog="Example: vitlite calibrate runs/bottle --target-fpr 0.01 --good newer_good/")
@click.argument("run", metavar="RUN")
@click.option(
    "--target-fpr",
    type=float,
    default=0.01,
    show_default=True,
    help="Share of good images that may be called defective.",
)
@click.option(
    "--good",
    metavar="DIR|IMAGE",
    multiple=True,
    type=click.Path(),
    help="Good images that training has not seen: a folder, file or pattern; repeatable.  [default: those held out]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@verbosity
def command(run, target_fpr, good, device):
    """Set the thresholds of a trained detector from good images.

    Nothing is trained. By default the good images are those that training held out; --good takes others, more of which
    make lower rates possible. Prints the rate of false alarms to expect, with its uncertainty for that many images, and
    rewrites calibration.json. In a run of several categories, an image given with --good belongs to the category whose
    name one of its folders has.
    """
    from vitlite.engine.calibrate import CALIBRATION_FILE, check_target, in_words, recalibrate, without_threshold
    from vitlite.engine.detector import Detector
    from vitlite.files import require_writable

    check_target(target_fpr)
    detector = Detector(run, device, calibrated=False)
    require_writable(run)
    result = recalibrate(detector, target_fpr=target_fpr, good=good)
    for line in (*in_words(result), *without_threshold(detector)):
        note(line)
    note(f"written: {run}/{CALIBRATION_FILE}")
