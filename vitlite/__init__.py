"""vitlite: industrial visual anomaly detection with vision transformers.

    detector = vitlite.train("parts/", "runs/parts")
    vitlite.evaluate(detector, "labelled/")["mean"]
    vitlite.load("runs/parts").predict("new.png").is_defect

Arrays with colours, given and returned, are RGB.

Importing the package is cheap: attributes are resolved on first use (PEP 562), so neither torch nor numpy loads
before something needs it.
"""

from typing import TYPE_CHECKING

from vitlite.lazy import lazily

if TYPE_CHECKING:
    from vitlite.api import evaluate, load, train
    from vitlite.errors import UserError
    from vitlite.verdict import Prediction

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
        "serve",
    }
)
# name: the module it lives in
_HOME = {"train": "api", "evaluate": "api", "load": "api", "Prediction": "verdict", "UserError": "errors"}

__all__ = ["Prediction", "UserError", "evaluate", "load", "train"]

__getattr__, __dir__ = lazily(__name__, _HOME, _SUBMODULES)
