"""MVTec LOCO AD (Bergmann et al., IJCV 2022): MVTec AD's folders, good pictures held out, several masks a picture.

``CATEGORY/train/good``, ``CATEGORY/validation/good``, ``CATEGORY/test/{good,logical_anomalies,structural_anomalies}``
and ``CATEGORY/ground_truth/<kind>/<stem>/000.png``, ``001.png`` ...: one file for each place that may be called wrong.
Their grey values tell kinds of defects apart, so every value but 0 is defective, and the files are united. The
saturation thresholds of defects_config.json, which the data set's own measure (sPRO) needs, are not read.
"""

import os
from pathlib import Path

from vitlite.data.index import GOOD
from vitlite.data.layouts.categories import Family, mask_files
from vitlite.data.listing import entries
from vitlite.images.masks import MaskFiles

KINDS = ("logical_anomalies", "structural_anomalies")


def _is_category(folder: Path) -> bool:
    return any(os.path.isdir(folder / part / kind) for part in ("test", "ground_truth") for kind in KINDS)


def _masks(category_folder: Path, kind: str) -> dict[str, Path | MaskFiles]:
    folder = category_folder / "ground_truth" / kind
    found: dict[str, Path | MaskFiles] = dict(mask_files(category_folder, kind))
    if folder.is_dir():
        for stem in entries(folder)[0]:
            images = entries(folder / stem)[1]
            if images:
                found[stem] = MaskFiles(tuple(folder / stem / name for name in images))
    return found


LOCO = Family("loco", GOOD, _is_category, _masks, kinds_of_mean=KINDS)
