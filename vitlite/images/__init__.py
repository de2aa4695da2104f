"""Reading, resizing and drawing images, masks and anomaly maps; numpy, scipy and Pillow alone.

A name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from vitlite.lazy import lazily

if TYPE_CHECKING:
    from vitlite.images.heatmap import overlay
    from vitlite.images.maps import MapError, read_map, write_map
    from vitlite.images.mask_values import MaskRule
    from vitlite.images.masks import MaskFiles, read_mask
    from vitlite.images.reading import ImageError, read_image
    from vitlite.images.resize import map_at, resize_image

_HOME = {
    "ImageError": "images.reading",
    "MapError": "images.maps",
    "MaskFiles": "images.masks",
    "MaskRule": "images.mask_values",
    "map_at": "images.resize",
    "overlay": "images.heatmap",
    "read_image": "images.reading",
    "read_map": "images.maps",
    "read_mask": "images.masks",
    "resize_image": "images.resize",
    "write_map": "images.maps",
}
__all__ = [
    "ImageError",
    "MapError",
    "MaskFiles",
    "MaskRule",
    "map_at",
    "overlay",
    "read_image",
    "read_map",
    "read_mask",
    "resize_image",
    "write_map",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
