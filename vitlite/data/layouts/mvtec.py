"""MVTec AD (Bergmann et al., CVPR 2019), and MPDD (Jezek et al., ICUMT 2021), which has the same layout.

``CATEGORY/train/good``, ``CATEGORY/test/<defect>`` (``good`` among them) and
``CATEGORY/ground_truth/<defect>/<stem>_mask.png`` or ``<stem>.png``.
"""

import os
from dataclasses import replace
from pathlib import Path

from vitlite.data.index import Dataset
from vitlite.data.layouts.categories import CategoryLayout


class MVTec(CategoryLayout):
    name = "mvtec"
    title = "MVTec layout"

    def matches(self, root: Path) -> bool:
        """Folders of classes have train/ and test/ too, so one of the names that only this layout has must be there."""
        test = root / "test"
        if any(self.good_names(folder) for folder in (root / "train", test)):
            return True
        return os.path.isdir(test) and os.path.isdir(root / self.truth)

    def read(self, root: Path, category: str | None) -> Dataset:
        return replace(super().read(root, category), layout="category")


LAYOUT = MVTec()
