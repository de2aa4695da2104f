"""Images that keep coming: into a folder, or as names; and whether their scores drift away. Needs no torch."""

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betaln, gammaln

from vitlite.answers import Asked, Sender, Tally, Wanted
from vitlite.data.coming import Coming
from vitlite.data.parts import PARTS_FILE, Parts
from vitlite.data.prediction_files import COLUMNS, CSV_FILE, FILES, Names, make_folders, refuse_replacing, row_of
from vitlite.engine.predict import check_out, scored
from vitlite.files import StrPath, make_folder, shown
from vitlite.ledger import Ledger
from vitlite.limits import ByCategory, Limits
from vitlite.metrics.thresholds import threshold_rank
from vitlite.predictor import Predictor

log = logging.getLogger(__name__)

PLAIN = Wanted()
USUAL = 0.1  # share of the calibration's images that are above the level
DOUBLED = 2 * USUAL
CALM = 1.5 * USUAL  # below this share a drift that was said is over
WINDOW = 500  # recent images that count
LEAST = 20  # images before anything is said
CHANCE = 1e-4  # what is likelier than this among images like the calibration's is no drift


class Drift:
    """Whether images that are judged good score higher than those of the calibration did.

    The level is the 90th percentile of those scores of the calibration that are not above the threshold. A drift is
    that at least twice the usual share of recent scores is above it, and that chance does not explain this: with few
    images in the calibration, the level itself is uncertain. Several threads may add scores.

    Args:
        limits: the threshold and the scores of the calibration; of one category, if each has its own.
    """

    def __init__(self, limits: Limits) -> None:
        self.threshold = limits.image
        self.usual = limits.good_scores[limits.good_scores <= limits.image]  # ascending
        self.rank = threshold_rank(self.usual.size, USUAL) if self.usual.size else 0
        self.above: deque[bool] = deque()
        self._count = 0  # of those that are
        self.drifts = False
        self._lock = threading.Lock()

    @property
    def level(self) -> float:
        """What about one in ten scores is above as long as nothing drifts; infinite if the calibration has no such."""
        return float(self.usual[self.rank - 1]) if self.rank else float("inf")

    @property
    def share(self) -> float:
        """The share of recent scores above the level, 0 to 1; 0 before there is one."""
        with self._lock:
            return self._share()

    def add(self, score: float) -> str | None:
        """Count the score of an image; one above the threshold counts for nothing.

        Returns a warning in one line if a drift begins, and None otherwise: so a drift is said once, and again only
        after it was over.
        """
        if not score <= self.threshold:
            return None
        with self._lock:
            self.above.append(score > self.level)
            self._count += self.above[-1]
            if len(self.above) > WINDOW:
                self._count -= self.above.popleft()
            share = self._share()
            if self.drifts:
                self.drifts = share >= CALM
                return None
            if len(self.above) < LEAST or share < DOUBLED or self._chance() > CHANCE:
                return None
            self.drifts = True
            return (
                f"scores drift: {share:.0%} of the last {len(self.above)} images judged good are above "
                f"{self.level:.4g}, {USUAL:.0%} at the calibration; check light, position and camera, or calibrate "
                "with recent good images"
            )

    def _share(self) -> float:
        return self._count / len(self.above) if self.above else 0.0

    def _chance(self) -> float:
        """How likely so many scores, or more, are above the level if the images are like the calibration's.

        The share of all such scores that is above the value of rank k of n has the distribution Beta(n + 1 - k, k);
        the number among m of them is beta-binomial.
        """
        total, a, b = len(self.above), self.usual.size + 1 - self.rank, self.rank
        count = np.arange(self._count, total + 1)
        ways = gammaln(total + 1) - gammaln(count + 1) - gammaln(total - count + 1)
        return float(np.exp(ways + betaln(count + a, total - count + b) - betaln(a, b)).sum())


def predict_coming(
    detector: Predictor,
    coming: Coming,
    out: StrPath | None = None,
    *,
    wanted: Wanted = PLAIN,
    resume: bool = False,
    overwrite: bool = False,
    group_by: str | None = None,
    emit: Callable[[dict[str, Any]], None] | None = None,
) -> Tally:
    """Score images as they come, as ``vitlite.engine.predict.predict`` does; how many there were, once no more come.

    Rows stay in the order in which they are scored. An image that comes again gets another row. A warning says if the
    scores of images judged good drift away from the calibration (:class:`Drift`). Another one comes with the first
    image of each kind that is clearly other than training's.

    ``coming`` gives the images, such as a ``vitlite.data.coming.NewFiles``; the other arguments are those of
    ``predict``, some of them in ``wanted``. With ``resume``, images with a verdict in ``out`` are not scored again.
    parts.csv is written at the end, also if an exception or a signal is the end.
    """
    check_out(out, resume=resume, overwrite=overwrite, maps=wanted.maps, parts=wanted.parts)
    wanted = replace(wanted, overlays=wanted.overlays and out is not None)
    limits = ByCategory(detector.calibration, wanted.category, **wanted.changes)
    wanted.check(detector.calibration, detector.without_parts)
    parts = Parts(group_by) if group_by is not None else None
    with contextlib.ExitStack() as stack:
        ledger, kept = None, []
        if out is not None:
            out = make_folder(out)
            refuse_replacing(out, [PARTS_FILE] if parts is not None else [])
            facts = wanted.facts(detector.digest(), detector.calibration)
            ledger = stack.enter_context(Ledger(out / CSV_FILE, COLUMNS, FILES, facts))
            earlier = ledger.begin(resume=resume, overwrite=overwrite, names=())
            kept = [row_of(ledger, row) for row in {row["file"]: row for row in earlier}.values() if row["verdict"]]
            make_folders(out, wanted.files, alone=True)
            if parts is not None:
                stack.callback(parts.write, out)
        stream = _Stream(detector, wanted, out, limits, kept, Sender(ledger, parts, emit), coming)
        for paths in coming.batches({row["file"] for row in kept}):
            stream.score(paths)
    return stream.tally


@dataclass
class _Stream:
    """Scores images that keep coming; ``kept`` are the rows of an earlier call."""

    detector: Predictor
    wanted: Wanted
    out: Path | None
    limits: ByCategory
    kept: list[dict[str, Any]]
    send: Sender
    coming: Coming

    def __post_init__(self) -> None:
        self.strange = self.detector.strange(named=self.coming.name)
        self.names = Names(self.out or Path(), self.wanted.files, self.kept)
        self.tally = Tally.of(self.kept)
        self.drifts: dict[str, Drift] = {}  # by category
        self.warned = False
        for row in self.kept:
            self.send.count(row)

    def score(self, paths: list[Path]) -> None:
        """Score images and send their rows."""
        coming = self.coming
        categories = [self._category(path) for path in paths]
        images = [Asked(path, self.names.of(path), self.limits[name]) for path, name in zip(paths, categories)]
        for place, row, readable in scored(self.detector, self.wanted, self.out, images, self.strange):
            if not readable and coming.unreadable(paths[place]):
                continue
            row["file"] = coming.name(paths[place])
            if "error" in row:
                row["error"] = row["error"].replace(shown(paths[place]), shown(row["file"]))
                log.warning("%s %s", "no verdict:" if readable else "not read:", row["error"])
            self.tally.add(row)
            self.send(row)
            if row.get("verdict") == "good":
                name = categories[place]
                drift = self.drifts.setdefault(name, Drift(self.limits[name]))
                if warning := drift.add(row["score"]):
                    log.warning("%s%s", f"{name}: " if name else "", warning)

    def _category(self, path: Path) -> str:
        name = self.limits.name(path)
        if self.limits.names and not name and not self.warned:
            self.warned = True
            known = ", ".join(self.limits.names)
            log.warning(
                "%s lies in no folder with the name of a category (%s); the threshold of all is used for it and others "
                "like it; name the folder, or give a category",
                shown(path),
                known,
            )
        return name
