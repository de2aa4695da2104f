"""The anomaly maps of an evaluation on disk, in the layout of the official MVTec AD evaluation scripts."""

from pathlib import Path

from vitlite.data.reading import shown
from vitlite.errors import UserError
from vitlite.files import make_folder
from vitlite.metrics.maps_io import write_map

MAPS_FOLDER = "maps"  # in the run


def map_file(folder, sample):
    """Where the map of a test sample lies: ``folder/<category>/test/<defect>/<stem>.tiff``."""
    return Path(folder) / sample.category / "test" / sample.defect / f"{sample.path.stem}.tiff"


def refuse_shared_maps(samples):
    """Pictures that differ in their extension alone would share a map; better said before hours of scoring."""
    taken = {}
    for sample in samples:
        other = taken.setdefault(map_file("", sample), sample)
        if other is not sample:
            raise UserError(
                f"--maps: {shown(other.path)} and {sample.path.name} would share one map file; rename one of them"
            )


def save_maps(scored, folder):
    """Write the maps of one category's test pictures, (H, W) at original size, as 32-bit float TIFFs."""
    for sample, values in zip(scored.samples, scored.maps):
        path = map_file(folder, sample)
        make_folder(path.parent)
        write_map(path, values)
