"""The anomaly maps of an evaluation on disk, in the layout of the official MVTec AD evaluation scripts."""

from pathlib import Path

from vitlite.data.reading import shown
from vitlite.errors import UserError
from vitlite.files import make_folder, remove
from vitlite.metrics.maps_io import MAP_EXTENSIONS, write_map

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


def earlier_maps(folder, samples):
    """The maps of these samples, all of a category's, that an earlier evaluation left in ``folder``.

    ``UserError`` where a category's folder holds maps of other pictures: they are not ours to remove, and ``vitlite
    eval-maps`` would stumble over them. Also where two samples would share a map.
    """
    refuse_shared_maps(samples)
    own = {map_file(folder, sample) for sample in samples}
    there = {
        path
        for category in {sample.category for sample in samples}
        for path in (Path(folder) / category).rglob("*")
        if path.suffix.lower() in MAP_EXTENSIONS
    }
    strange = sorted(there - own)
    if strange:
        name = strange[0].relative_to(folder)
        raise UserError(
            f"--maps: {shown(folder)} holds {len(strange)} maps of other pictures ({shown(name)}); "
            f"move {shown(Path(folder) / name.parts[0])} away first"
        )
    return there


def save_maps(scored, folder, samples):
    """Write the maps of one category's test pictures, (H, W) at original size, as 32-bit float TIFFs.

    ``scored`` is of ``score_category(full_maps=True)``; ``samples`` are all of the category: earlier maps are removed
    first, also of pictures that were not read this time, so that maps of two evaluations never lie side by side.
    """
    for path in earlier_maps(folder, samples):
        remove(path)
    for sample, values in zip(scored.samples, scored.maps):
        path = map_file(folder, sample)
        make_folder(path.parent)
        write_map(path, values)
