"""Exact ranking and localisation metrics for anomaly detection: numpy in and out, numba inside, no torch.

``evaluate_maps`` gives all of them from one sort; ``StreamingEvaluator`` does the same in fixed memory with a stated
error bound. Everything is imported on first use, so that ``import vitlite.metrics`` costs nothing.

All of them raise ``ValueError``, which names the argument, for shapes that differ, empty input, scores that are not a
number, masks or labels with other values than 0 and 1, a limit outside (0, 1], and when one of the two classes is
missing (good or defective images, normal or defective pixels). Infinite scores are allowed and rank first or last.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlite.metrics.exact import aupro, auroc, average_precision, evaluate_maps, f1_max, pro_curve
    from vitlite.metrics.streaming import StreamingEvaluator

_HOME = {
    "auroc": "exact",
    "average_precision": "exact",
    "f1_max": "exact",
    "pro_curve": "exact",
    "aupro": "exact",
    "evaluate_maps": "exact",
    "StreamingEvaluator": "streaming",
}
__all__ = ["StreamingEvaluator", "aupro", "auroc", "average_precision", "evaluate_maps", "f1_max", "pro_curve"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
