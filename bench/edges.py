"""How often the highest value of a good image's map lies at the edge, by what the filter of the map does there.

Each run's test images are scored twice with the same weights: the filter mirrors the values beyond the edge
(``mirror``), or draws what is near it towards the map's mean (``even``). The share at the edge should be that of the
edge's area. Maps are as they are drawn, before the comparison of places.

Example: vitlite bench edges --runs runs/screw runs/tire
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitlite.data import open_dataset
from vitlite.engine.detector import Detector
from vitlite.engine.settings import data_folder
from vitlite.metrics import auroc
from vitlite.results import aligned

from ._machine import described, machine, parser_of
from ._runs import Changed

EDGE = 1 / 32  # of the map's side


def main(args: Sequence[str] | None = None) -> int:
    parser = parser_of("edges", __doc__)
    parser.add_argument("--runs", nargs="+", required=True, help="folders that vitlite train wrote")
    options = parser.parse_args(args)
    print(described(machine()))
    print(f"the edge: the outer {EDGE:.1%} of a side, {1 - (1 - 2 * EDGE) ** 2:.0%} of the area")
    rows: list[tuple[str, ...]] = [("run", "good", "mirror", "even", "AUROC of the maximum: mirror", "even")]
    for run in options.runs:
        measured = [measure(Changed(Path(run), edge=edge)) for edge in ("mirror", "even")]
        (good, *_), _ = measured
        at_edge, ranking = ([f"{one[i]:.{i + 1}f}" for one in measured] for i in (1, 2))
        rows.append((Path(run).name, str(good), *at_edge, *ranking))
    print("\n".join(aligned(rows)))
    return 0


def measure(detector: Detector) -> tuple[int, float, float]:
    """The number of good test images, the share with their highest value at the edge, the AUROC of the maximum."""
    data = open_dataset(data_folder(detector.settings, detector.run))
    labels, highest, at_edge = [], [], []
    for sample in data.test:
        found = detector.predict(sample.path).map
        places = zip(np.unravel_index(found.argmax(), found.shape), found.shape)
        labels.append(sample.label)
        highest.append(found.max())
        at_edge.append(any(min(at, size - 1 - at) < EDGE * size for at, size in places))
    good = np.array(labels) == 0
    return int(good.sum()), float(np.mean(np.array(at_edge)[good])), auroc(labels, highest)
