"""Setting the thresholds of a finished run anew, from good images that training did not see. Nothing is trained."""

import contextlib
import os
from pathlib import Path

from vitlite.data import Sample, list_images, open_dataset, scan
from vitlite.data.layout import TITLES
from vitlite.data.reading import shown
from vitlite.engine.calibrate import CALIBRATION_FILE, HELD_OUT, TARGET_FPR, calibrate, load_calibration
from vitlite.engine.coverage import check_target
from vitlite.engine.fingerprint import digest, fingerprint
from vitlite.engine.split import split_good
from vitlite.engine.train import SYNTHETIC, data_folder
from vitlite.errors import UserError

_OTHERS = "give good images that it has not seen with --good DIR"


def recalibrate(detector, *, target_fpr=TARGET_FPR, good=(), quiet=False, say=print):
    """Rewrite a run's calibration.json for another false-alarm rate or from other good images.

    ``good`` holds files, folders and patterns; without it the share that training held out is taken, which needs the
    data of training as it was. Returns what was written, and ``detector`` uses it from then on. Raises ``UserError``:
    a rate outside (0, 1), a run that is not finished, data that is gone or has changed, images that were trained on.
    """
    check_target(target_fpr)
    if not (detector.run / CALIBRATION_FILE).exists():
        load_calibration(detector.run)  # says that training did not finish
    if good:
        samples, source = given(detector, good), ", ".join(shown(path) for path in good)
    else:
        samples, source = held_out_share(detector), HELD_OUT
    detector.calibration = calibrate(
        detector.method,
        detector.settings,
        detector.run,
        samples,
        detector.device,
        held_out=True,
        target_fpr=target_fpr,
        source=source,
        quiet=quiet,
        say=say,
    )
    for line in without_threshold(detector):
        say(line)
    return detector.calibration


def without_threshold(detector):
    """A line on the categories of a run of several that the calibration has no images of; none otherwise."""
    trained, calibrated = detector.settings.category.split(","), detector.calibration["categories"]
    left_out = [shown(name) for name in trained if name not in calibrated]
    if not left_out or len(trained) == 1:
        return []
    return [
        f"no threshold of its own: {', '.join(left_out)}; give --good images of every category in a folder so named"
    ]


def held_out_share(detector):
    """The good images that training kept apart."""
    if not good_split(detector)[2]:
        share = detector.settings.config.holdout
        raise UserError(f"{detector.run}: training held no good images out (holdout = {share}); {_OTHERS}")
    return training_split(detector)[1]


def good_split(detector):
    """(root, trained, held out) of the data of training as it is now. ``UserError`` where it is gone."""
    settings = detector.settings
    try:
        dataset = open_dataset(data_folder(settings, detector.run), settings.category or None)
    except UserError as error:
        raise UserError(f"{error} (the data of training, with the images that it held out); or {_OTHERS}") from error
    return dataset.root, *split_good(dataset, settings.config, settings.seed)


def training_split(detector):
    """(trained, held out) as training split its images. ``UserError`` where that can no longer be known."""
    root, trained, held = good_split(detector)
    # The split depends on which files there are: with one more or less, a trained image may pass for one held out.
    # Training took the fingerprint of those that it could read; reading them all again is slow and seldom needed.
    for samples in (lambda: trained, lambda: scan(trained)[0]):
        if fingerprint(root, [s.path for s in samples()]) == detector.fingerprint:
            return trained, held
    raise UserError(
        f"{detector.settings.data}: images were added, removed, renamed or changed since training, so that it is no "
        f"longer known which were held out; {_OTHERS}"
    )


def given(detector, inputs):
    """The images that ``--good`` stands for, as samples; refuses those that the run was trained on."""
    categories = detector.settings.category.split(",")
    found = {}
    for path in inputs:
        for image in folder_images(path) if os.path.isdir(path) else list_images([path]):
            found.setdefault(os.path.abspath(image), image)
    samples = [Sample(path, category_of(path, categories), "train", "good", 0, None) for path in found.values()]
    refuse_trained(detector, samples)
    return samples


def folder_images(folder):
    """A plain folder of good images, by the rules of training: a data set with defects among them is refused."""
    dataset = open_dataset(folder, "all", need_train=False)
    if dataset.layout != "folder":
        raise UserError(
            f"--good {shown(folder)}: is a data set ({TITLES[dataset.layout]}); give a folder of good images alone"
        )
    return [sample.path for sample in dataset.train]


def category_of(path, categories):
    """A run of several categories knows an image's by the nearest folder of that name; "" where there is none."""
    if len(categories) == 1:
        return categories[0]
    folders = Path(os.path.abspath(path)).parts[-2::-1]
    return next((name for name in folders if name in categories), "")


def refuse_trained(detector, samples):
    """Images that were trained on, copies included, score too low; found where the data of training is still there."""
    trained = perhaps_trained(detector)
    # Only files of equal size can be equal, which spares reading most of them.
    sizes = {size_of(s.path) for s in samples}
    digests = {digest(s.path) for s in trained if size_of(s.path) in sizes} - {None}
    seen = [s.path for s in samples if digests and digest(s.path) in digests]
    if seen:
        raise UserError(
            f"--good: the run was trained on {len(seen)} of the {len(samples)} images, first {shown(seen[0])}; "
            f"give others, or leave --good out to take those that training held out"
        )


def perhaps_trained(detector):
    """What was trained on; all good images where the split is no longer known; none where the data is gone."""
    settings = detector.settings
    folder = detector.run / SYNTHETIC if settings.data == SYNTHETIC else Path(settings.data)
    if folder.is_dir():
        with contextlib.suppress(UserError):
            return training_split(detector)[0]
        with contextlib.suppress(UserError):
            _, trained, held = good_split(detector)
            return trained + held
    return []


def size_of(path):
    try:
        return os.stat(path).st_size
    except OSError:  # reading it will say why
        return -1
