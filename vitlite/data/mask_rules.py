"""What the masks of a data set mean: one rule for each category, found once from all of its masks."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vitlite.data.index import Dataset, Sample, few
from vitlite.data.layouts import layout_of
from vitlite.errors import UserError
from vitlite.files import counted, shown
from vitlite.images.loading import each
from vitlite.images.mask_evidence import Evidence, Undecided, decide, evidence_of, listed
from vitlite.images.mask_values import COLOUR, MaskRule
from vitlite.images.masks import MaskFiles, files_of, read_mask
from vitlite.images.reading import ImageError
from vitlite.images.scale import MAX_PIXELS

log = logging.getLogger(__name__)

Mask = Path | MaskFiles


def with_mask_rules(dataset: Dataset, mask_threshold: int | None = None, *, max_pixels: int = MAX_PIXELS) -> Dataset:
    """The data set with a ``MaskFiles`` for every mask, which holds the rule of its category.

    Reads all masks of a category of which the layout does not say the rule. A warning is logged about masks that match
    no image.

    Args:
        dataset: what ``open_dataset`` found.
        mask_threshold: a pixel is defective if its value is above it (0 to 65534); no mask is read then.
        max_pixels: larger masks say nothing about the rule.

    Returns:
        A :class:`~vitlite.data.index.Dataset`; ``read_mask`` reads its masks.

    Raises:
        UserError: the values of a category's masks fit no rule; names an example, its values and what to do.
    """
    given = None if mask_threshold is None else MaskRule.above(mask_threshold, "mask_threshold")
    spare = list(layout_of(dataset.root).spare_masks(dataset)) if dataset.test else []
    strays = [shown(Path(mask).relative_to(dataset.root)) for mask, of_good in spare if not of_good]
    if strays:
        log.warning("%s: %s", shown(dataset.root), _unused(strays))
    good = [mask for mask, of_good in spare if of_good]
    rules = {name: given or find_rule(dataset, name, good, max_pixels) for name in dataset.categories}
    if marked := [mask for mask in good if _marks(mask, dataset, rules, max_pixels)]:
        masks = f"{counted(len(marked), 'mask')} of good images mark{'s' * (len(marked) == 1)} a defect and"
        does = "does" if len(marked) == 1 else "do"
        names = few([shown(Path(mask).relative_to(dataset.root)) for mask in marked], 4)
        log.warning(
            "%s: %s %s not count: %s; move an image with a defect into the folder of its kind",
            *(shown(dataset.root), masks, does, names),
        )
    return replace(dataset, test=tuple(_ruled(sample, rules[sample.category]) for sample in dataset.test))


def _unused(names: Sequence[str]) -> str:
    """What to say of masks that no image has, in a line."""
    are = "is" if len(names) == 1 else "are"
    why = "no image has that name, or it has another mask"
    return f"{counted(len(names), 'mask')} {are} not used ({why}): {few(names, 4)}"


def _marks(mask: Mask, dataset: Dataset, rules: Mapping[str, MaskRule | None], max_pixels: int) -> bool:
    """Whether the mask of a good image marks anything, by the rule of its category."""
    own = (rule for name, rule in rules.items() if rule and Path(mask).is_relative_to(dataset.folder(name)))
    try:
        return any(read_mask(mask, rule=rule, max_pixels=max_pixels).any() for rule in own)
    except ImageError:
        return False


def _ruled(sample: Sample, rule: MaskRule | None) -> Sample:
    if sample.mask is None or rule is None:
        return sample
    return replace(sample, mask=MaskFiles(files_of(sample.mask), rule))


def find_rule(
    dataset: Dataset, category: str, of_good: Iterable[Mask] = (), max_pixels: int = MAX_PIXELS
) -> MaskRule | None:
    """The rule of a category's masks: the layout's, or what their values say; None without masks.

    ``of_good`` are masks of good images, which may tell that all are inverted. Raises UserError as ``with_mask_rules``.
    """
    masks = [sample.mask for sample in dataset.test if sample.category == category and sample.mask is not None]
    if not masks:
        return None
    for mask in masks:
        if isinstance(mask, MaskFiles):
            return mask.rule
    folder = dataset.folder(category)
    found = gather(masks, max_pixels)
    try:
        own = [mask for mask in of_good if Path(mask).is_relative_to(folder)]
        return decide(found, upright=_upright(gather(own, max_pixels)))
    except Undecided as error:
        example, held = shown(error.example.relative_to(dataset.root)), listed(error.example, max_pixels)
        first = f"{error.other}; if not, " if error.other else ""
        raise UserError(
            f"{shown(category)}: the meaning of its masks is not clear: {example} has {held}, and "
            f"{error}; {first}give `mask_threshold=N` (a pixel above N is a defect), or save the masks with 0 for good "
            f"and 255 for a defect"
        ) from error


def gather(masks: Iterable[Mask], max_pixels: int = MAX_PIXELS) -> Evidence:
    """What all files of some masks hold; files that cannot be read are passed over."""
    found = Evidence()
    for one in each(lambda path: _evidence(path, max_pixels), (path for mask in masks for path in files_of(mask))):
        if one:
            found.add(one)
    return found


def _evidence(path: Path, max_pixels: int) -> Evidence | None:
    try:
        return evidence_of(path, max_pixels)
    except ImageError:  # whoever reads the mask for its image names it
        return None


def _upright(good: Evidence) -> bool | None:
    """Whether a set pixel is a defect, if masks of good images say so: all of them are empty, or all are full."""
    plane = good.planes.get(COLOUR)
    if plane is None or 0 < plane.marked < plane.pixels:
        return None
    return not plane.marked
