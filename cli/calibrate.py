"""``vitlite calibrate``: set the thresholds of a run anew, from good images or by hand."""

from collections.abc import Callable

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note


def _images(name: str, metavar: str, text: str) -> Callable[[options.Command], options.Command]:
    """An option that takes images and can be repeated."""
    return click.option(name, metavar=metavar, multiple=True, type=click.Path(), help=text)


@click.command(name="calibrate", epilog="Example: vitlite calibrate runs/bottle --target-fpr 0.01 --good newer_good/")
@options.run
@click.option(
    "--target-fpr",
    type=float,
    default=None,
    help="The share of good images that may be called defective.  [default: as in training, 0.05]",
)
@options.sensitivity
@_images(
    "--good",
    "DIR|IMAGE",
    "Good images that training has not seen: a folder, file or pattern; repeatable.  [default: as training scored]",
)
@_images("--without", "IMAGE", "Leave this image out, because it is defective after all; repeatable.")
@click.option(
    "--exact",
    is_flag=True,
    help="The exact rule: odd good images count as all others. By the robust rule the farthest set no threshold.",
)
@options.threshold
@options.pixel_threshold
@options.min_area
@click.option("--category", metavar="NAME", help="Set --threshold and --pixel-threshold for this category alone.")
@_images(
    "--defects",
    "DIR|IMAGE",
    "Known defective images: says how many are missed. They change a threshold only with --balance. Repeatable.",
)
@click.option(
    "--balance",
    is_flag=True,
    help="Set the image threshold from the good images and --defects: the least sum of the two shares of mistakes.",
)
@options.max_megapixels
@options.device
@options.verbosity
def command(
    run: str,
    target_fpr: float | None,
    sensitivity: str | None,
    good: tuple[str, ...],
    without: tuple[str, ...],
    exact: bool,
    threshold: float | None,
    pixel_threshold: float | None,
    min_area: int | None,
    category: str | None,
    defects: tuple[str, ...],
    balance: bool,
    max_megapixels: float,
    device: str,
) -> None:
    """Set the thresholds of a trained detector, from good images or by hand.

    Nothing is trained. By default the scores are those that training kept of good images that the network has not seen.
    --good scores other images; more images make lower rates possible. Prints the rate of false alarms to expect and how
    uncertain it is, and rewrites calibration.json. In a run of several categories, an image given with --good belongs
    to the category that one of its folders is named after.

    A good image whose score is far above the others is named. Look at it; --without leaves it out.

    With --threshold, --pixel-threshold or --min-area, and nothing that sets a threshold from good images, no good image
    is scored: the numbers are written as they are. --min-area holds for the whole run, also after later calibrations,
    until it is given again; no threshold depends on it. With --defects alone, nothing is written.

    With --balance, the image threshold has the least sum of the share of good images above it and the share of known
    defects at or below it. No rate of false alarms is promised then. New defects are missed more often than those that
    chose the threshold.
    """
    from vitlite.data.photographs import list_defects
    from vitlite.engine.calibrate import CALIBRATION_FILE, misses, recalibrate, set_thresholds, without_threshold
    from vitlite.engine.detector import Detector
    from vitlite.errors import UserError
    from vitlite.files import require_writable
    from vitlite.limits import check_target, in_words, rate_of

    if balance and not defects:
        raise UserError("`balance`: takes known defective images; give `defects`")
    if balance and not (threshold is pixel_threshold is target_fpr is sensitivity is None):
        raise UserError(
            "`balance`: not together with `threshold`, `pixel_threshold`, `sensitivity` or `target_fpr`; "
            "it sets the threshold itself"
        )
    by_hand = threshold is not None or pixel_threshold is not None
    if exact and (by_hand or balance):
        raise UserError("`exact`: not together with `threshold`, `pixel_threshold` or `balance`")
    if by_hand and (good or without or target_fpr is not None or sensitivity):
        raise UserError("`threshold`, `pixel_threshold`: not together with what sets a threshold from good images")
    if category is not None and min_area is not None:
        raise UserError("`min_area`: one value for the whole run; leave out `category`")
    if category is not None and not by_hand:
        raise UserError(f"`category={category}`: only together with `threshold` or `pixel_threshold`")
    if sensitivity is not None and target_fpr is not None:
        raise UserError("`sensitivity`: not together with `target_fpr`; it stands for one")
    share = target_fpr if sensitivity is None else rate_of(sensitivity)
    if share is not None:
        check_target(share)
    given = by_hand or min_area is not None
    anew = good or without or balance or exact or share is not None or not (given or defects)
    bad = list_defects(defects) if defects else []  # refuses what is not there before anything is written
    if given and not anew:
        require_writable(run)
        own = set_thresholds(run, image=threshold, pixel=pixel_threshold, min_area=min_area, category=category)
        least = own.min_area
        if by_hand:
            of = "" if category is None else f" of {category}"
            note(f"threshold{of} {own.image:.6g} (pixels {own.pixel:.6g}), set by hand")
    detector = Detector(run, device, calibrated=not anew, max_megapixels=max_megapixels) if anew or bad else None
    if detector is not None and anew:
        require_writable(run)
        result = recalibrate(
            detector,
            target_fpr=share,
            good=good,
            without=without,
            balance=bad if balance else (),
            known=() if balance else bad,
            min_area=min_area,
            exact=exact,
        )
        least = result["min_area"]
        for line in (*in_words(result), *without_threshold(detector)):
            note(line)
    if anew or given:
        if min_area is not None or least > 1:
            note(f"regions of fewer than {least} pixels are no defect" if least > 1 else "a defect may have any size")
        note(f"written: {run}/{CALIBRATION_FILE}")
    if detector is not None and bad:
        for line in misses(detector, bad):
            note(line)
