"""How good images are parted at random: dealt to folds, held out, or a few of them drawn."""

import random

from vitlite.data.index import Sample, grouped


def deal(groups: list[list[int]], count: int, rng: random.Random) -> list[list[int]]:
    """Groups dealt to a number of folds, larger ones first, always to the smallest fold.

    Too few groups for that are cut into pieces of neighbouring images.
    """
    folds: list[list[int]] = [[] for _ in range(count)]
    images = sum(map(len, groups))
    if len(groups) < count or max(map(len, groups)) > images / 2:
        size = max(1, -(-images // (2 * count)))
        groups = [group[i : i + size] for group in groups for i in range(0, len(group), size)]
    rng.shuffle(groups)
    for group in sorted(groups, key=len, reverse=True):
        min(folds, key=len).extend(group)
    return [sorted(fold) for fold in folds]


def draw_groups(groups: list[list[int]], share: float, rng: random.Random) -> list[int]:
    """About a share of the images, at least one and not all, as whole groups.

    A piece of a group is taken only if even the smallest group is more than half of the images.
    """
    images = sum(map(len, groups))
    wanted = min(max(round(share * images), 1), images - 1)
    rng.shuffle(groups)
    chosen: list[int] = []
    for group in groups:
        if len(chosen) + len(group) <= wanted:
            chosen += group
    if len(chosen) < wanted / 2:
        left = [group for group in groups if not set(group) & set(chosen)]
        least = min(left, key=len)
        chosen += least if len(chosen) + len(least) <= images / 2 else least[: wanted - len(chosen)]
    return chosen


def hold_out(samples: list[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Split training samples into (train, held out), per category, at random but fixed by the seed.

    A category with two or more images has at least one on each side; a share of 0 holds nothing out.
    """
    train, held = [], []
    for category, own in grouped((sample.category, sample) for sample in samples).items():
        count = min(max(round(share * len(own)), 1), len(own) - 1) if share > 0 else 0
        chosen = set(random.Random(seed_text(seed, category)).sample(range(len(own)), count))
        train += [s for i, s in enumerate(own) if i not in chosen]
        held += [s for i, s in enumerate(own) if i in chosen]
    return train, held


def seed_text(seed: int, category: str) -> bytes:
    # As bytes, because a folder's name need not be valid text; for valid text both seed alike.
    return f"{seed}/{category}".encode("utf-8", "surrogateescape")


def draw_few(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """At most ``count`` samples of each category (0: all), at random but fixed by the seed, in their order."""
    if not count:
        return samples
    order = random.Random(f"{seed}/few").sample(samples, len(samples))
    taken = grouped((sample.category, sample) for sample in order)
    chosen = {id(sample) for own in taken.values() for sample in own[:count]}
    return [sample for sample in samples if id(sample) in chosen]
