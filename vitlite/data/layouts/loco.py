"""MVTec LOCO AD (Bergmann et al., IJCV 2022): MVTec AD's folders, good images held out, several masks for an image.

``CATEGORY/train/good``, ``CATEGORY/validation/good``, ``CATEGORY/test/{good,logical_anomalies,structural_anomalies}``
and ``CATEGORY/ground_truth/<kind>/<stem>/000.png``, ``001.png`` ...: one file for each place that may be called wrong.
Their grey values tell kinds of defects apart, so every value but 0 is defective, and the files are united. The
saturation thresholds of defects_config.json, which the data set's own measure (sPRO) needs, are not read.
"""

import os
from pathlib import Path

from vitlite.data.layouts.categories import CategoryLayout
from vitlite.data.listing import entries
from vitlite.images.masks import MaskFiles


class LOCO(CategoryLayout):
    name = "loco"
    title = "MVTec LOCO layout"
    kinds_of_mean = ("logical_anomalies", "structural_anomalies")

    def matches(self, root: Path) -> bool:
        return any(os.path.isdir(root / part / kind) for part in (self.test, self.truth) for kind in self.kinds_of_mean)

    def masks(self, category: Path, kind: str) -> dict[str, Path | MaskFiles]:
        folder = category / self.truth / kind
        found = super().masks(category, kind)
        for stem in entries(folder)[0] if folder.is_dir() else ():
            images = entries(folder / stem)[1]
            if images:
                found[stem] = MaskFiles(tuple(folder / stem / name for name in images))
        return found


LAYOUT = LOCO()
