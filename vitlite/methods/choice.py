"""The choice of the image score and of how places are compared: what finds drawn defects best."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vitlite.methods.base import Method
from vitlite.methods.config import AUTO, PLACES, SCORES
from vitlite.methods.kinds import NONE, Switch
from vitlite.metrics import aupro
from vitlite.nn.score import WITHOUT_PLACES

FEWEST = 8  # good images with which places can be compared
CLEARLY = 2  # standard errors by which a score has to be better than the usual one, ...
LEAST_GAIN = 0.05  # ... and the difference in AUROC: drawn defects are not the real ones, so a little says nothing
RANKED = 512  # tiles of good images that scores are compared on, at most
SHOWN = 100  # good images, or tiles, whose maps are compared with those of drawn defects, at most
LEAST_LOSS = 0.02  # in AUPRO, by which a map has to be better as it is than compared
BATCH = 8  # rows that are scored at a time


class Seen(Protocol):
    """What was measured of good images that a network has not seen, and of defects drawn onto some of them."""

    count: int  # of rows
    errors: Tensor  # (count,)
    drawn_errors: Tensor  # (n,)
    masks: np.ndarray  # (n, h * w / 8), of the drawn defects, packed
    source: list[int]  # the row that each of the n drawn defects lies on

    @property
    def samples(self) -> Sequence[object]:
        """The images."""

    @property
    def tiles(self) -> object | None:
        """None if a row is an image; otherwise it is a tile of one."""

    def compared(self, rows: slice, how: str, drawn: bool = False) -> Tensor:
        """Values (B, h, w) of some rows, or of drawn defects, compared with all good images but those of its group."""


class Head(NamedTuple):
    """The settings ``score``, ``places`` and ``compare_maps``, and why they were chosen."""

    score: str
    places: str
    compare_maps: Switch
    reason: str


@torch.no_grad()
def choose_head(method: Method, measured: Seen) -> Head:
    """What ``score=auto``, ``places=auto`` and ``compare_maps=auto`` become: what finds drawn defects best.

    The usual choice (the method's ``default_score`` and ``default_places``) stays unless another is better by more than
    :data:`CLEARLY` standard errors of the difference, taken over the images that were drawn on, and by
    :data:`LEAST_GAIN`. Maps are compared unless their AUPRO is better by :data:`LEAST_LOSS` as they are.
    """
    config = method.config
    usual = (method.score_name, method.default_places if config.places == AUTO else config.places)
    if len(measured.samples) < FEWEST or not measured.source:
        places = "none" if config.places == AUTO else config.places
        score = WITHOUT_PLACES.get(usual[0], usual[0]) if places == "none" else usual[0]
        shown = config.compare_maps if places != NONE else False
        return Head(score, places, shown, f"too few good images that training has not seen (at least {FEWEST})")
    scores = (*config.own_scores, *SCORES) if config.score == AUTO else (config.score,)
    compared = PLACES if config.places == AUTO else (config.places,)
    ranks = {(score, how): rank for how in compared for score, rank in rank_by(method, measured, how, scores).items()}
    best, gain = usual, LEAST_GAIN
    for choice, rank in ranks.items():
        difference = rank - ranks[usual]
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        if choice != usual and difference.mean() > max(CLEARLY * error, gain):
            best, gain = choice, float(difference.mean())
    reason = f"AUROC of drawn defects {ranks[best].mean():.3f}"
    if best != usual:
        reason += f", against {ranks[usual].mean():.3f} by {usual[0]} and places {usual[1]}"
    elif len(ranks) > 1:
        reason += "; no other is clearly better"
    shown = config.compare_maps
    if shown == AUTO:
        shown, why = choose_maps(method, measured, best[1])
        reason += f"; {why}"
    return Head(*best, shown, reason)


def choose_maps(method: Method, measured: Seen, how: str) -> tuple[bool, str]:
    """Whether maps are better compared, by ``how``, than as they are: what ``compare_maps=auto`` becomes; and why."""
    if how == NONE:
        return False, "maps as they are, because no place is compared"
    compared, plain = (aupro_of_drawn(method, measured, way) for way in (how, NONE))
    figures = f"AUPRO of drawn defects {compared:.3f} compared, {plain:.3f} as they are"
    shown = plain < compared + LEAST_LOSS
    return shown, f"maps {'compared' if shown else 'as they are'} ({figures})"


def aupro_of_drawn(method: Method, measured: Seen, how: str) -> float:
    """AUPRO@0.3 of the maps of drawn defects, beside those of at most :data:`SHOWN` good images."""
    maps: list[np.ndarray] = []
    for drawn in (False, True):
        for found, _, _ in seen_by(method, measured, how, drawn, SHOWN):
            maps += list(found.cpu().numpy())
    shape = maps[0].shape
    masks = [np.zeros(shape, bool)] * (len(maps) - len(measured.source))
    masks += [np.unpackbits(bits, count=maps[0].size).reshape(shape).astype(bool) for bits in measured.masks]
    return float(aupro(masks, maps))


def seen_by(
    method: Method, measured: Seen, how: str, drawn: bool, most: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of (maps, compared values, errors): of all ``drawn`` defects, or of at most ``most`` good images."""
    device = next(method.parameters()).device
    errors = measured.drawn_errors if drawn else measured.errors
    step = 1 if drawn else -(-len(errors) // most)
    for first in range(0, len(errors), BATCH * step):
        rows = slice(first, first + BATCH * step, step)
        values = measured.compared(rows, how, drawn).to(device)
        yield method.maps(values), values, errors[rows].to(device)


def rank_by(method: Method, measured: Seen, how: str, scores: Sequence[str]) -> dict[str, np.ndarray]:
    """How well each score finds drawn defects: for each image drawn on, the mean share of good images below them."""
    found: dict[bool, dict[str, list[Tensor]]] = {}
    for drawn in (False, True):
        parts: dict[str, list[Tensor]] = {score: [] for score in scores}
        for maps, values, errors in seen_by(method, measured, how, drawn, RANKED if measured.tiles else measured.count):
            for score, part in parts.items():
                part.append(method.scores(maps, values, errors, score).cpu())
        found[drawn] = parts
    index = np.unique(measured.source, return_inverse=True)[1]
    ranks = {}
    for score in scores:
        good, bad = (torch.cat(found[drawn][score]).double().numpy() for drawn in (False, True))
        ordered = np.sort(good)
        below = (np.searchsorted(ordered, bad, "left") + np.searchsorted(ordered, bad, "right")) / (2 * len(ordered))
        ranks[score] = np.bincount(index, below) / np.bincount(index)
    return ranks
