"""Reading, resizing and drawing images, masks and anomaly maps; numpy, scipy and Pillow alone.

A name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlite.images.heatmap import overlay
    from vitlite.images.maps import MapError, read_map, write_map
    from vitlite.images.masks import MaskFiles, read_mask
    from vitlite.images.reading import ImageError, read_image
    from vitlite.images.resize import resize_image

_HOME = {
    "ImageError": "reading",
    "MapError": "maps",
    "MaskFiles": "masks",
    "overlay": "heatmap",
    "read_image": "reading",
    "read_map": "maps",
    "read_mask": "masks",
    "resize_image": "resize",
    "write_map": "maps",
}
__all__ = [
    "ImageError",
    "MapError",
    "MaskFiles",
    "overlay",
    "read_image",
    "read_map",
    "read_mask",
    "resize_image",
    "write_map",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
