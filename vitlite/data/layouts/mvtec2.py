"""MVTec AD 2 (Heckler-Kram et al., 2025): MVTec AD's folders, but with public and private test images.

``CATEGORY/train/good``, ``CATEGORY/validation/good``, ``CATEGORY/test_public/{good,bad}`` and
``CATEGORY/test_public/ground_truth/bad/<stem>_mask.png``. The labels of ``test_private`` and ``test_private_mixed`` are
not published, so these two are no test set here.
"""

import os
from pathlib import Path

from vitlite.data.layouts.categories import CategoryLayout


class MVTec2(CategoryLayout):
    name = "mvtec2"
    title = "MVTec AD 2 layout"
    test = "test_public"
    truth = "test_public/ground_truth"
    unlabelled = ("test_private", "test_private_mixed")

    def matches(self, root: Path) -> bool:
        """A category whose folder was renamed to test/, as MVTec AD calls it, has that layout."""
        return os.path.isdir(root / self.test) and not os.path.isdir(root / "test")


LAYOUT = MVTec2()
