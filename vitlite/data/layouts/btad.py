"""BTAD, beanTech's three products (Mishra et al., ISIE 2021): good is called ok and defective ko.

``CATEGORY/train/ok``, ``CATEGORY/test/{ok,ko}`` and ``CATEGORY/ground_truth/ko/<stem>.png`` or ``.bmp``, for the
categories 01, 02 and 03. Pictures are .bmp or .png, and a mask need not have its picture's extension.
"""

import os
from pathlib import Path

from vitlite.data.layouts.categories import Family, mask_files


def _is_category(folder: Path) -> bool:
    return any(os.path.isdir(folder / part) for part in ("train/ok", "test/ok", "test/ko"))


BTAD = Family("btad", "ok", _is_category, mask_files)
