"""What a threshold from n good values promises. Order statistics alone: nothing is assumed of their distribution.

Of n + 1 exchangeable values the newest is as likely to have any rank. So a new good image exceeds the k-th smallest of
n with a rate that is Beta(n + 1 - k, k) over draws of the n (exactly so where scores do not tie, at most so where they
do), and with the expected rate (n + 1 - k) / (n + 1).
"""

import math

import numpy as np
from scipy.special import betaincinv

from vitlite.errors import UserError

CONFIDENCE = 0.9  # of the interval that is reported
_ROUNDING = 1e-9  # 30 * 0.1 must count as 3 whatever its last bit


def check_target(share):
    """Refuses a false-alarm rate outside (0, 1), not-a-number included, and one that is lost in rounding."""
    if not _ROUNDING <= share < 1:
        bound = f"at least {_ROUNDING:g}" if 0 < share < 1 else "above 0"
        raise UserError(f"--target-fpr {share}: must be {bound} and below 1, such as 0.01 for one false alarm in 100")


def threshold_rank(count, share):
    """The rank k, from 1 to ``count``, whose value keeps the expected false-alarm rate at or below ``share``.

    Where ``count`` is below :func:`images_needed` no rank does, and the largest value is all that the data can say.
    """
    return min(count + 1 - math.floor((count + 1) * share + _ROUNDING), count)


def images_needed(share):
    """The fewest good images with which the expected rate can be as low as ``share``: 1 / (n + 1) <= share."""
    return max(math.ceil(1 / share - _ROUNDING / share) - 1, 1)


def upper_quantile(values, share):
    """The value of rank :func:`threshold_rank` among n >= 1 good values (the conformal quantile), a float."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    index = threshold_rank(flat.size, share) - 1
    return float(np.partition(flat, index)[index])


def false_alarms(count, share, confidence=CONFIDENCE):
    """The rate that ``upper_quantile`` of ``count`` values leads to: ``(expected, (low, high))``.

    ``expected`` is (n + 1 - k) / (n + 1); the rate of one particular calibration lies between ``low`` and ``high`` with
    the probability ``confidence``, as much of the rest on either side.
    """
    rank = threshold_rank(count, share)
    tail = (1 - confidence) / 2
    low, high = (float(betaincinv(count + 1 - rank, rank, p)) for p in (tail, 1 - tail))
    return (count + 1 - rank) / (count + 1), (low, high)
