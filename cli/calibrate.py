"""vitlite calibrate."""

import click


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
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(run, target_fpr, good, device, quiet):
    """Set the thresholds of a trained detector from good images.

    Nothing is trained. By default the good images are those that training held out; --good takes others, more of which
    make lower rates possible. Prints the rate of false alarms to expect, with its uncertainty for that many images, and
    rewrites calibration.json. In a run of several categories, an image given with --good belongs to the category whose
    name one of its folders has.
    """
    from vitlite.engine.calibrate import CALIBRATION_FILE, check_target, recalibrate
    from vitlite.engine.detector import Detector
    from vitlite.files import require_writable

    check_target(target_fpr)
    say = (lambda line: None) if quiet else click.echo
    detector = Detector(run, device, calibrated=False)
    require_writable(run)
    recalibrate(detector, target_fpr=target_fpr, good=good, quiet=quiet, say=say)
    if not quiet:
        click.echo(f"written: {run}/{CALIBRATION_FILE}")
