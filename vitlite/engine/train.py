"""Training: from settings to a run directory with a trained, calibrated detector."""

import functools
import logging
import operator
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vitlite.backbones.base import is_random
from vitlite.calibration import HELD_OUT, TRAINED_ON
from vitlite.data import Dataset, Sample, open_dataset
from vitlite.data.copies import fingerprint
from vitlite.data.groups import MOST as MOST_COMPARED
from vitlite.data.groups import named, similar
from vitlite.engine.calibrate import calibrate, draw_odd, load_calibration
from vitlite.engine.checkpoint import (
    CALIBRATION_FILE,
    CHECKPOINT_FILE,
    FAILED_FILE,
    LOG_FILE,
    drop_failed,
    drop_log_after,
    load_checkpoint,
    refuse_present,
    scored_by,
    with_weights,
)
from vitlite.engine.distributed import Team, decided, join, keep_freed_memory
from vitlite.engine.features import FeatureCache, Part, cache_features, log_size, with_scale, with_shape
from vitlite.engine.loop import FOLDS_FILE, Loop, cross_fit, to_measure
from vitlite.engine.settings import (
    SYNTHETIC,
    RunSettings,
    data_folder,
    data_path,
    load_settings,
    new_regions,
    refuse_data_folder,
    refuse_invalid_names,
    regions_of,
    save_settings,
)
from vitlite.engine.split import Grouping, Split, make_split, random_split, recorded, save_split, training_split
from vitlite.engine.unseen import DrawnTest, Measured, draw_sources
from vitlite.engine.update import UPDATED, compare_new, earlier_split, grown_split, new_ones, with_added
from vitlite.errors import UserError
from vitlite.files import (
    MAX_MEGAPIXELS,
    Claim,
    StrPath,
    below,
    counted,
    refuse_unwritable,
    remove,
    remove_leftovers,
    shown,
)
from vitlite.good_scores import save_good_scores
from vitlite.images.region_files import FOLDER, around_parts, draw_regions, refuse_others, save_regions
from vitlite.images.regions import Regions
from vitlite.images.scale import Reading, as_pixels
from vitlite.limits import in_words
from vitlite.methods.base import Method, Stage
from vitlite.methods.choice import FEWEST, choose_head
from vitlite.methods.config import TrainingConfig
from vitlite.methods.footprint import refuse_too_deep, refuse_too_large
from vitlite.methods.schedule import plan_stages, refuse_average
from vitlite.nn.score import PlaceStatistics
from vitlite.odd import Odd

log = logging.getLogger(__name__)

EXAMPLES = 3  # images on which regions are drawn, ...
DRAWN_REGIONS = f"{FOLDER}/examples"  # ... in the run
CROSS_FITTED = "all good images, each scored by a network that was trained without it"


def train(
    settings: RunSettings,
    run: StrPath,
    *,
    device: str = "auto",
    resume: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> dict[str, Any] | None:
    """Train into the folder ``run``; returns the calibration that it wrote.

    With ``resume`` the run goes on from its last checkpoint and reaches the weights that it would have had without the
    interruption. ``settings`` are then those of its config.toml, but for the number of steps or epochs, which may have
    grown, also after the end, and for the folder of the data, which may have moved. Under torchrun all processes train
    one model, and the first one writes and logs; the others return None. Images of more than ``max_megapixels`` are
    left out. Raises ``UserError``, which names the folder, the file or the setting.
    """
    with join(device) as (team, place), Claim(run, "training") as claim:
        return _train(settings, Path(run), place, team, claim, resume, as_pixels(max_megapixels))


def _train(
    settings: RunSettings, run: Path, device: torch.device, team: Team, claim: Claim, resume: bool, max_pixels: int
) -> dict[str, Any] | None:
    if team.leads and (resume or settings.data == SYNTHETIC):  # otherwise the folder is made after the data is found
        claim.take()
    before = load_settings(run) if resume else settings
    if not resume:
        refuse_unwritable(run)
        refuse_present(run)
        refuse_data_folder(settings, run)
    keep_freed_memory()
    if team.leads:
        data_folder(settings, run)  # made once, before the others look for it
    team.wait()
    dataset = with_added(open_data(settings, run, resume), settings)
    settings = replace(settings, category=",".join(dataset.categories))
    refuse_invalid_names(settings)
    if not dataset.train:
        raise UserError(f"{settings.data}: no good images to train on")

    samples = [*dataset.train, *dataset.validation]
    regions = None if resume else new_regions(settings, dataset.categories)
    if regions is not None:
        refuse_others(regions, [sample.path for sample in samples], settings.roi, settings.ignore)
    # The box around the parts, which are looked for at the scale of the run, has the shape that is kept.
    early = settings.config.keeps and regions is not None and regions.auto and not settings.regions
    if early:
        settings, regions = at_scale(settings, samples, regions, max_pixels)
    if not resume:
        settings = replace(settings, config=with_shape(settings.config, samples, regions))

    torch.manual_seed(settings.seed)
    state = None
    if resume and (run / CHECKPOINT_FILE).exists():
        state = load_checkpoint(run, settings.method)
    if device.type == "cpu":  # a GPU says by itself that its memory is short
        refuse_too_deep(settings.config, trained=True)
    method, origin, weights = with_weights(settings, run, state)
    if settings.config.patience and len(method.stages()) > 1:
        raise UserError(f"`patience={settings.config.patience}`: {settings.method} trains in several stages; give 0")
    refuse_average(method, settings.config)
    if state is not None:
        finished = state["stage"] >= len(method.stages()) and (run / CALIBRATION_FILE).exists()
        if finished and settings.config == before.config:
            if settings != before:
                training_split(settings, run, state["fingerprint"])  # refuses other images
                save_settings(run, settings)
            log.info("%s: already trained to the end; nothing to do", run)
            return load_calibration(run)
    if settings.added and state is None:
        new_ones(settings, samples, earlier_split(settings, samples, dataset.root))  # refused before long work
    precision = decided(settings.config.precision, device)
    if device.type == "cpu":
        refuse_too_large(type(method), replace(settings.config, precision=precision), len(samples))
    if state is None and team.leads:
        claim.take()
        if not resume:
            drop_failed(run)
            if not early:  # a resumed run has its scale, if it has one
                settings, regions = at_scale(settings, samples, regions, max_pixels)
            # Kept, so that a resumed run does not measure anew, and all processes train alike.
            settings = replace(settings, config=replace(settings.config, precision=precision))
            if regions is not None:
                save_regions(regions, run / FOLDER)
                settings = replace(settings, regions=regions.digest())
        save_settings(run, settings)
        drop_log_after(run / LOG_FILE, 0, 0)  # of an earlier start that was stopped before its first checkpoint
    if team.leads:
        remove_leftovers(run)
        remove(run / FAILED_FILE)  # of the start before this one
    team.wait()
    settings = team.agree(settings)
    method.to(device)
    log_model(method, origin, weights, device)
    reading = Reading(settings.config.image_scale, max_pixels, regions_of(settings, run))
    log_size(settings, samples, reading.regions)
    if team.leads and reading.regions is not None:
        draw_regions(reading.regions, [sample.path for sample in samples[:EXAMPLES]], run / DRAWN_REGIONS, reading)
        log.info("regions: look at %s; what is dark there counts for nothing", run / DRAWN_REGIONS)
    cache, indices = cache_features(method, [sample.path for sample in samples], run, device, reading=reading)
    samples = [samples[i] for i in indices]
    if state is None:
        numbers = grouping(method, cache, samples, dataset.root, settings.config.groups)
        if settings.added:
            split = grown_split(settings, samples, dataset.root, numbers)
            compare_new(settings, samples, dataset.root, cache.known)
        else:
            split = make_split(samples, settings.config, settings.seed, numbers)
    else:
        split = recorded(run, samples, dataset.root) or random_split(samples, settings.config, settings.seed)
    split = team.agree(split)
    log_data(dataset, split, settings.config)
    decides = not split.folds  # otherwise the first of the further networks decides when training ends
    test = DrawnTest(method, [samples[i].path for i in split.held], reading, settings.seed, decides=decides)
    loop = Loop(method, settings, run, Part(cache, split.train), device, team, test=test, decides=decides)
    if settings.config.patience and not split.held:
        log.warning("no good images are held out, so training goes on to its last step (holdout=0)")
    loop.weights = weights
    loop.fingerprint = fingerprint(dataset.root, [samples[i].path for i in split.train])
    measured = None
    if state is not None:
        loop.restore(state)  # refuses other images, before anything is written
        loop.change(before)
    if team.leads:
        save_split(run, split, samples, dataset.root, data_path(settings, run))
    log_work(plan_stages(method.stages(), settings.config, len(split.train)), split, settings.config)
    if split.folds:
        rng = torch.get_rng_state()
        measured = cross_fit(loop, samples, cache, split, reading)
        torch.set_rng_state(rng)
    if state is None:
        method.fit(loop.batches())
    loop.run_stages()
    loop.keep_end(loop.ended)
    if not team.leads:
        return None
    return conclude(loop, samples, cache, split, measured, reading)


def at_scale(
    settings: RunSettings, samples: Sequence[Sample], regions: Regions | None, max_pixels: int
) -> tuple[RunSettings, Regions | None]:
    """A new run's settings with the scale of its images and, with ``roi=auto``, the box around the parts seen at it.

    A run that looks where another does has that one's box.
    """
    settings = replace(settings, config=with_scale(settings.config, samples, max_pixels))
    if regions is not None and not settings.regions:
        reading = Reading(settings.config.image_scale, max_pixels)
        regions = around_parts(regions, [sample.path for sample in samples], reading)
    return settings, regions


def open_data(settings: RunSettings, run: Path, resume: bool) -> Dataset:
    """The data of a run. If the user did not name its categories, ``UserError`` for other ones is about ``data``."""
    root = data_folder(settings, run)
    try:
        return open_dataset(root, settings.category or None)
    except UserError as error:
        if not (resume or settings.added) or not error.marked.startswith("`category="):
            raise
        raise UserError(f"`data={shown(root)}`: is not the data of the run ({error})") from error


def grouping(method: Method, cache: FeatureCache, samples: Sequence[Sample], root: Path, pattern: str) -> Grouping:
    """What numbers the groups of some images: their names, if there is a ``pattern``, or how alike they are."""

    def number(rows: list[int]) -> Iterable[int]:
        if pattern:
            return named([below(samples[row].path, root) for row in rows], pattern)
        if len(rows) > MOST_COMPARED:
            log.info("%d images are too many to be compared: none is taken for near to another", len(rows))
            return range(len(rows))
        if cache.tiles is not None:
            coarse = [cache.tiles.coarse[row] for row in rows]
        else:
            parts = (rows[first : first + 64] for first in range(0, len(rows), 64))
            coarse = [method.coarse(cache[torch.tensor(part)]) for part in parts]
        return similar(torch.cat(coarse).numpy())

    return number


def conclude(
    loop: Loop,
    samples: Sequence[Sample],
    cache: FeatureCache,
    split: Split,
    measured: Measured | None,
    reading: Reading,
) -> dict[str, Any]:
    """Choose the score, let the places learn, score the good images and set the thresholds; returns the calibration."""
    method, settings, run = loop.method, loop.settings, loop.run
    unseen = bool(split.scored)
    rows = split.scored or split.train
    if measured is None:
        measured = to_measure(loop, samples, cache, split)
    place_of = {row: place for place, row in enumerate(rows)}
    own = split.held if unseen else rows
    places = [place_of[row] for row in own]
    measured.add(method, places, measured.features(method, places, Part(cache, own), reading))
    if unseen:
        drawn_on = draw_sources(settings.config, settings.seed, rows)
        drawn = [place_of[row] for row in own if row in drawn_on]
        measured.add_drawn(method, method, drawn, reading, settings.seed)
    if settings.config.drawn_decide:
        head = choose_head(method, measured)
        config = replace(settings.config, score=head.score, places=head.places, compare_maps=head.compare_maps)
        settings = loop.settings = replace(settings, config=config, chosen=head.reason)
        save_settings(run, settings)
        log.info("score: %s, places %s (%s)", head.score, head.places, head.reason)
    method.set_head(settings.config.score, settings.config.places, settings.config.compare_maps)
    itself = not unseen or len(measured.samples) < FEWEST
    learn_places(method, measured if not itself else None, loop)
    loop.save(None)
    good = measured.good(method, itself=itself)
    crossed = UPDATED if settings.added else CROSS_FITTED
    source = crossed if split.folds else HELD_OUT if split.held else TRAINED_ON
    made_by = scored_by(settings, method.state_dict())
    save_good_scores(run, data_path(settings, run), good, source, made_by)

    def draw(odd: Sequence[Odd], calibration: dict[str, Any]) -> dict[str, str]:
        at = {shown(sample.path): index for index, sample in enumerate(measured.samples)}
        chosen = [measured.samples[at[image.file]] for image in odd]
        return draw_odd(
            lambda loaded: measured.maps(method, at[odd[loaded.index].file], itself=itself),
            chosen,
            odd,
            run,
            calibration,
            reading,
            settings.config.view,
        )

    known = functools.reduce(operator.or_, cache.known)
    calibration = calibrate(run, settings, good, source=source, made_by=made_by, draw=draw, known=known)
    remove(run / FOLDS_FILE)
    for line in in_words(calibration):
        log.log(logging.INFO if unseen else logging.WARNING, line)
    return calibration


@torch.no_grad()
def learn_places(method: Method, measured: Measured | None, loop: Loop) -> None:
    """Let the method's places learn from what was measured or, without it, from the training images."""
    if measured is not None:
        method.places.learn(measured.statistics)
        return
    statistics = PlaceStatistics(method.places_shape, method.least_deviation)
    method.eval()
    for features in loop.batches():
        statistics.add(method.values(features))
    method.places.learn(statistics)


def log_data(dataset: Dataset, split: Split, config: TrainingConfig) -> None:
    """Log how many images train, and how the others serve the threshold."""
    images, categories = counted(len(split.train), "good image"), ", ".join(dataset.categories)
    if split.folds:
        log.info(
            "data: %s to train on, %d held out for the threshold, %d scored by networks without them (%d more; %s)",
            images,
            len(split.held),
            len(split.scored) - len(split.held),
            len(split.folds),
            categories,
        )
    else:
        log.info("data: %s to train on, %d held out for the threshold (%s)", images, len(split.held), categories)
    if config.train_images and config.folds:
        log.info("data: no folds, because train_images draws single images; a share of %g is held out", config.holdout)
    groups = len(set(split.groups.values()))
    if groups < len(split.groups):
        what = "by their names" if config.groups else "of near-copies"
        log.info("groups: the %d images are in %s %s", len(split.groups), counted(groups, "group"), what)
    if split.parted:
        log.warning(
            "groups: %s had to be parted, because there are too few; scores of good images, and thresholds, may be too "
            "low for new images; give good images that differ more",
            counted(len(split.parted), "group"),
        )


def log_work(stages: Sequence[Stage], split: Split, config: TrainingConfig) -> None:
    """Log how many networks train, and for how many steps; nothing for a method that takes none."""
    if steps := sum(stage.epochs * stage.steps_per_epoch(len(split.train), config) for stage in stages):
        what = f"{'up to ' * bool(config.patience)}{counted(steps, 'step')}{' each' * bool(split.folds)}"
        log.info("training: %s, %s", counted(len(split.folds) + 1, "network"), what)


def log_model(method: Method, origin: str | None, weights: str | None, device: torch.device) -> None:
    """Log what is trained, in a line, and warn if the frozen ``weights`` came from nowhere."""
    count = sum(p.numel() for p in method.parameters() if p.requires_grad)
    begun = f", weights from {origin}" if origin else ""
    if method.backbone_name:
        begun = f", features from {method.backbone_name} ({origin})"
    if method.start_source:
        begun += f", begun with those of {method.start_source}"
    log.info("model: %.2f M trained parameters%s, on %s", count / 1e6, begun, device)
    if is_random(weights):
        log.warning(
            "weights of %s are random, and no training changes them: more defects are missed than with weights that "
            "were trained on photographs (weights=auto)",
            method.backbone_name,
        )
