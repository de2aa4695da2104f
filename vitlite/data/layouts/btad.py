"""BTAD, beanTech's three products (Mishra et al., ISIE 2021): good is called ok, and defective ko.

``CATEGORY/train/ok``, ``CATEGORY/test/{ok,ko}`` and ``CATEGORY/ground_truth/ko/<stem>.png`` or ``.bmp``, for the
categories 01, 02 and 03. Images are .bmp or .png; a mask may have another extension than its image.
"""

import os
from pathlib import Path

from vitlite.data.layouts.categories import CategoryLayout


class BTAD(CategoryLayout):
    name = "btad"
    title = "BTAD layout"
    good = "ok"

    def matches(self, root: Path) -> bool:
        return any(os.path.isdir(root / part) for part in ("train/ok", "test/ok", "test/ko"))


LAYOUT = BTAD()
