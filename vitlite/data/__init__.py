"""Finding data sets on disk, checking them, and making synthetic ones. Never imports torch.

Attributes are resolved on first use (PEP 562), so importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from vitlite.lazy import lazily

if TYPE_CHECKING:
    from vitlite.data.checking import Report as Report
    from vitlite.data.checking import check as check
    from vitlite.data.drawn import DRAWN as DRAWN
    from vitlite.data.drawn import draw_defect as draw_defect
    from vitlite.data.drawn import estimate_part as estimate_part
    from vitlite.data.index import Dataset as Dataset
    from vitlite.data.index import Sample as Sample
    from vitlite.data.layouts import open_dataset as open_dataset
    from vitlite.data.listing import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS
    from vitlite.data.listing import list_images as list_images
    from vitlite.data.listing import scan as scan
    from vitlite.data.mask_rules import with_mask_rules as with_mask_rules
    from vitlite.data.synthetic import draw_set as draw_set
    from vitlite.data.synthetic import synthesize as synthesize
    from vitlite.images.mask_values import MaskRule as MaskRule
    from vitlite.images.masks import MaskFiles as MaskFiles
    from vitlite.images.masks import read_mask as read_mask
    from vitlite.images.reading import ImageError as ImageError
    from vitlite.images.reading import read_image as read_image
    from vitlite.images.resize import resize_image as resize_image

_HOME = {
    "ImageError": "images.reading",
    "read_image": "images.reading",
    "read_mask": "images.masks",
    "resize_image": "images.resize",
    "Dataset": "data.index",
    "MaskFiles": "images.masks",
    "MaskRule": "images.mask_values",
    "Sample": "data.index",
    "open_dataset": "data.layouts",
    "IMAGE_EXTENSIONS": "data.listing",
    "list_images": "data.listing",
    "scan": "data.listing",
    "DRAWN": "data.drawn",
    "draw_defect": "data.drawn",
    "estimate_part": "data.drawn",
    "Report": "data.checking",
    "check": "data.checking",
    "draw_set": "data.synthetic",
    "synthesize": "data.synthetic",
    "with_mask_rules": "data.mask_rules",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazily(__name__, _HOME)
