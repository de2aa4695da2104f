"""Finding data sets on disk, checking them, and making synthetic ones. Never imports torch.

Attributes are resolved on first use (PEP 562), so importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from vitlite.lazy import lazily

if TYPE_CHECKING:
    from vitlite.data.checking import Report, check
    from vitlite.data.drawn import DRAWN, draw_defect, estimate_part
    from vitlite.data.index import Dataset, Sample
    from vitlite.data.layouts import open_dataset
    from vitlite.data.listing import IMAGE_EXTENSIONS, list_images, scan
    from vitlite.data.mask_rules import with_mask_rules
    from vitlite.data.synthetic import draw_set, synthesize
    from vitlite.images.mask_values import MaskRule
    from vitlite.images.masks import MaskFiles, read_mask
    from vitlite.images.reading import ImageError, read_image
    from vitlite.images.resize import resize_image

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

__all__ = [
    "DRAWN",
    "IMAGE_EXTENSIONS",
    "Dataset",
    "ImageError",
    "MaskFiles",
    "MaskRule",
    "Report",
    "Sample",
    "check",
    "draw_defect",
    "draw_set",
    "estimate_part",
    "list_images",
    "open_dataset",
    "read_image",
    "read_mask",
    "resize_image",
    "scan",
    "synthesize",
    "with_mask_rules",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
