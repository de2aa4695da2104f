"""MVTec AD 2 (Heckler-Kram et al., 2025): MVTec AD's folders, but with public and private test pictures.

``CATEGORY/train/good``, ``CATEGORY/validation/good``, ``CATEGORY/test_public/{good,bad}`` and
``CATEGORY/test_public/ground_truth/bad/<stem>_mask.png``. The owners keep the labels of ``test_private`` and
``test_private_mixed`` to themselves, so these two are no test set here.
"""

import os
from functools import partial
from pathlib import Path

from vitlite.data.index import GOOD
from vitlite.data.layouts.categories import Family, mask_files

TEST = "test_public"
_TRUTH = f"{TEST}/ground_truth"


def _is_category(folder: Path) -> bool:
    """Whoever renamed the folder to test/, as MVTec AD calls it, has that layout."""
    return os.path.isdir(folder / TEST) and not os.path.isdir(folder / "test")


MVTEC2 = Family("mvtec2", GOOD, _is_category, partial(mask_files, truth=_TRUTH), TEST, _TRUTH)
