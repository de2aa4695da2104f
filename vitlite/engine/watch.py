"""Images that keep coming: whether their scores drift away from the calibration. Needs no torch."""

import threading
from collections import deque

import numpy as np
from scipy.special import betaln, gammaln

from vitlite.limits import Limits
from vitlite.metrics.thresholds import threshold_rank

USUAL = 0.1  # share of the calibration's images that are above the level
DOUBLED = 2 * USUAL
CALM = 1.5 * USUAL  # below this share a drift that was said is over
LEAST = 20  # images before anything is said
CHANCE = 1e-4  # what is likelier than this among images like the calibration's is no drift


class Drift:
    """Whether images that are judged good score higher than those of the calibration did.

    The level is the 90th percentile of those scores of the calibration that are not above the threshold. A drift is
    that at least twice the usual share of recent scores is above it, and that chance does not explain this: with few
    images in the calibration, the level itself is uncertain. Several threads may add scores.

    Args:
        limits: the threshold and the scores of the calibration; of one category, if each has its own.
        window: how many recent images count.
    """

    def __init__(self, limits: Limits, *, window: int = 500) -> None:
        self.threshold = limits.image
        self.usual = limits.good_scores[limits.good_scores <= limits.image]  # ascending
        self.rank = threshold_rank(self.usual.size, USUAL) if self.usual.size else 0
        self.above: deque[bool] = deque(maxlen=window)
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
        return sum(self.above) / len(self.above) if self.above else 0.0

    def _chance(self) -> float:
        """How likely so many scores, or more, are above the level if the images are like the calibration's.

        The share of all such scores that is above the value of rank k of n has the distribution Beta(n + 1 - k, k);
        the number among m of them is beta-binomial.
        """
        total, a, b = len(self.above), self.usual.size + 1 - self.rank, self.rank
        count = np.arange(sum(self.above), total + 1)
        ways = gammaln(total + 1) - gammaln(count + 1) - gammaln(total - count + 1)
        return float(np.exp(ways + betaln(count + a, total - count + b) - betaln(a, b)).sum())
