"""vitlite: industrial visual anomaly detection with vision transformers.

Importing the package is cheap: attributes are resolved on first use (PEP 562), so neither torch nor numpy loads
before something needs it.
"""

import importlib

__version__ = "0.1.0"

_SUBMODULES = frozenset(
    {"backbones", "bench", "cli", "data", "engine", "kernels", "methods", "metrics", "nn", "report"}
)


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f"vitlite.{name}")
    raise AttributeError(f"module 'vitlite' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_SUBMODULES})
