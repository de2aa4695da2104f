"""Passing over pictures that cannot be read, by name and number."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from vitlite.data.index import Sample
from vitlite.data.reading import ImageError, read_image
from vitlite.data.threads import each


def readable(samples: Iterable[Sample], on_error: Callable[[Sample, str], None]) -> Iterator[tuple[Sample, np.ndarray]]:
    """Yield each sample with its picture, uint8 (H, W, 3); call ``on_error(sample, reason)`` for those without one."""
    for sample in samples:
        try:
            image = read_image(sample.path)
        except ImageError as error:
            on_error(sample, error.reason)
        else:
            yield sample, image


def scan(samples: Iterable[Sample]) -> tuple[list[Sample], list[tuple[Sample, str]]]:
    """Decode every picture once and drop it again: the samples that can be read, and the others with the reason.

    Both in the order given. Decodes on threads (Pillow releases the interpreter lock) and keeps no picture.
    """
    samples = list(samples)
    good, bad = [], []
    for sample, reason in zip(samples, each(_complaint, samples)):
        if reason is None:
            good.append(sample)
        else:
            bad.append((sample, reason))
    return good, bad


def _complaint(sample: Sample) -> str | None:
    try:
        read_image(sample.path)
    except ImageError as error:
        return error.reason
    return None
