"""Reading pictures, finding data sets on disk, checking them, and making synthetic ones. Never imports torch.

Attributes are resolved on first use (PEP 562), so importing the package costs nothing.
"""

import importlib

_HOME = {
    "ImageError": "images.reading",
    "read_image": "images.reading",
    "read_mask": "images.masks",
    "resize_image": "images.resize",
    "Dataset": "data.index",
    "MaskFiles": "images.masks",
    "Sample": "data.index",
    "open_dataset": "data.layouts",
    "IMAGE_EXTENSIONS": "data.listing",
    "list_images": "data.listing",
    "readable": "data.listing",
    "scan": "data.listing",
    "Report": "data.checking",
    "check": "data.checking",
    "synthesize": "data.synthetic",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'vitlite.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vitlite.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_HOME})
