"""vitlite: industrial visual anomaly detection with vision transformers.

    detector = vitlite.train("parts/", "runs/parts")
    vitlite.evaluate(detector, "labelled/")["mean"]
    vitlite.load("runs/parts").predict("new.png").is_defect

Importing the package is cheap: attributes are resolved on first use (PEP 562), so neither torch nor numpy loads
before something needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlite.api import evaluate, load, train
    from vitlite.engine.predict import Prediction
    from vitlite.errors import UserError

__version__ = "0.2.0"

_SUBMODULES = frozenset(
    {
        "api",
        "backbones",
        "bench",
        "cli",
        "data",
        "engine",
        "export",
        "images",
        "kernels",
        "methods",
        "metrics",
        "nn",
        "report",
    }
)
# name: the module it lives in
_HOME = {
    "train": "api",
    "evaluate": "api",
    "load": "api",
    "Prediction": "engine.predict",
    "UserError": "errors",
}

__all__ = ["Prediction", "UserError", "evaluate", "load", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"vitlite.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"vitlite.{name}")
    raise AttributeError(f"module 'vitlite' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, *_HOME})
