"""MVTec AD (Bergmann et al., CVPR 2019), and MPDD (Jezek et al., ICUMT 2021), which keeps to its layout.

``CATEGORY/train/good``, ``CATEGORY/test/<defect>`` (``good`` among them) and
``CATEGORY/ground_truth/<defect>/<stem>_mask.png`` or ``<stem>.png``.
"""

import os
from pathlib import Path

from vitlite.data.index import GOOD
from vitlite.data.layouts.categories import Family, mask_files


def _is_category(folder: Path) -> bool:
    """Folders of classes have train/ and test/ too, so one of the names that only this layout has must be there."""
    test = folder / "test"
    return any(map(os.path.isdir, (folder / "train" / GOOD, test / GOOD))) or (
        os.path.isdir(test) and os.path.isdir(folder / "ground_truth")
    )


MVTEC = Family("mvtec", GOOD, _is_category, mask_files)
