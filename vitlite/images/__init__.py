"""Reading, resizing and drawing images, masks and anomaly maps; numpy, scipy and Pillow alone.

A name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from vitlite.lazy import lazily

if TYPE_CHECKING:
    from vitlite.images.heatmap import overlay as overlay
    from vitlite.images.maps import MapError as MapError
    from vitlite.images.maps import read_map as read_map
    from vitlite.images.maps import write_map as write_map
    from vitlite.images.mask_values import MaskRule as MaskRule
    from vitlite.images.masks import MaskFiles as MaskFiles
    from vitlite.images.masks import read_mask as read_mask
    from vitlite.images.reading import ImageError as ImageError
    from vitlite.images.reading import read_image as read_image
    from vitlite.images.resize import map_at as map_at
    from vitlite.images.resize import resize_image as resize_image

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
__all__ = list(_HOME)

__getattr__, __dir__ = lazily(__name__, _HOME)
