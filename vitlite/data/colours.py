"""Training images in grey among others in colour, or the other way round: usually those of another camera."""

from collections import defaultdict
from pathlib import Path

from vitlite.data.index import Sample
from vitlite.images.known import COLOUR, GREY, colour_of
from vitlite.images.modes import Stored

BOTH = ((GREY, COLOUR), (COLOUR, GREY))


class SeenColours:
    """The training images of each category that are clearly grey, or clearly in colour."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, list[Path]]] = defaultdict(lambda: {GREY: [], COLOUR: []})

    def add(self, sample: Sample, colour: str) -> None:
        """Count an image, whose colour :func:`colour_in` says."""
        if sample.split == "train" and colour in (GREY, COLOUR):
            self._seen[sample.category][colour].append(sample.path)

    def problems(self) -> list[tuple[str, str, list[Path]]]:
        """As in ``Report.problems``: the images of the colour that fewer have, grey if as many do."""
        fewer: dict[str, list[Path]] = {GREY: [], COLOUR: []}
        for seen in self._seen.values():
            colour = min(seen, key=lambda colour: len(seen[colour]))
            fewer[colour] += seen[colour]
        return [("training image", f"in {colour}, among others in {other}", fewer[colour]) for colour, other in BOTH]


def colour_in(stored: Stored) -> str:
    """GREY, FAINT or COLOUR; "" for colours of more than 8 bits, whose noise has many levels."""
    if stored.values.ndim == 2:
        return GREY
    return "" if stored.wide else colour_of(stored.values)
