"""Reading pictures, finding data sets on disk, checking them, and making synthetic ones. Never imports torch.

Attributes are resolved on first use (PEP 562), so importing the package costs nothing.
"""

import importlib

_HOME = {
    "ImageError": "reading",
    "read_image": "reading",
    "read_mask": "reading",
    "resize_image": "reading",
    "Dataset": "index",
    "MaskFiles": "masks",
    "Sample": "index",
    "open_dataset": "layout",
    "IMAGE_EXTENSIONS": "listing",
    "list_images": "listing",
    "readable": "scanning",
    "scan": "scanning",
    "Report": "checking",
    "check": "checking",
    "synthesize": "synthetic",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'vitlite.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vitlite.data.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_HOME})
