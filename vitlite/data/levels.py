"""Which numbers the images of a data set use, and which scale training learns from them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitlite.data.index import Sample, grouped
from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.loading import each
from vitlite.images.reading import read_levels
from vitlite.images.scale import MAX_PIXELS, Levels, Scale, choose, differing, fades, in_words, learn, united

_FAR = 16  # an image lies outside a scale if its levels pass an end by a part of this size


def used_levels(samples: Sequence[Sample], max_pixels: int = MAX_PIXELS) -> dict[str, list[Levels]]:
    """The levels of the images of more than 8 bits that can be read, by category."""
    every = each(lambda sample: read_levels(sample.path, max_pixels), samples)
    return grouped((sample.category, levels) for sample, levels in zip(samples, every) if levels is not None)


@dataclass
class SeenLevels:
    """The levels of all images that can be read."""

    images: list[tuple[Sample, Levels]] = field(default_factory=list)

    def of(self, category: str) -> str:
        """A category's levels in words, for each type of file; "" if no image can be read."""
        kinds = grouped((levels.type, levels) for sample, levels in self.images if sample.category == category)
        return ", ".join(f"{united(own)} of {kind} files" for kind, own in kinds.items())

    def lines(self) -> list[str]:
        """What to know before training on files of more than 8 bits, in a line each."""
        trained = self._trained()
        if not trained:
            return []
        try:
            found = [line for name, own in trained.items() for line in _own_line(name, own, len(trained) > 1)]
            _, scale = learn(trained)
        except UserError as error:
            return [str(error)]
        apart = differing(trained, scale) if scale else []
        if apart:
            found.append(
                f"trained together all take {_settings(scale)}, and next to nothing is left of "
                f"{', '.join(map(shown, apart))}: train such categories apart"
            )
        return found

    def outside(self) -> Iterator[Path]:
        """The images that the scale of their category's training images cuts off."""
        for path, levels, scale in self._scaled():
            slack = (scale.white - scale.black) / _FAR
            if levels.low < scale.black - slack or levels.high > scale.white + slack:
                yield path

    def faded(self) -> Iterator[Path]:
        """The images of which that scale leaves next to nothing."""
        yield from (path for path, levels, scale in self._scaled() if fades(levels, scale))

    def _scaled(self) -> Iterator[tuple[Path, Levels, Scale]]:
        """The images of more than 8 bits with the scale of their category's training images, if there is one."""
        try:
            scales = {name: learn({name: own})[1] for name, own in self._trained().items()}
        except UserError:
            return
        for sample, levels in self.images:
            scale = scales.get(sample.category)
            if scale is not None and levels.bits != 8:
                yield sample.path, levels, scale

    def _trained(self) -> dict[str, list[Levels]]:
        """Those of the training images of more than 8 bits, by category."""
        seen = (pair for pair in self.images if pair[0].split == "train" and pair[1].bits != 8)
        return grouped((sample.category, levels) for sample, levels in seen)


def _own_line(name: str, own: Iterable[Levels], several: bool) -> Iterator[str]:
    used = united(list(own))
    scale = choose(used)
    if scale != (used.bottom, used.top):
        taken = f"; training takes {_settings(scale)}" if scale else ""
        yield f"{f'{shown(name)}: ' * several}{in_words(used, scale)}{taken}"


def _settings(scale: Scale | None) -> str:
    # What lies around levels depends on which images are held out.
    about = "about " if scale and scale.black else ""
    return f"{about}black={scale.black:g} and white={scale.white:g}" if scale else ""
