"""Fused operators for anomaly detection, usable alone: nothing here imports the rest of vitlite.

The folder may be copied into another project: imports are relative, and without the compiled extension beside it
the operators run on eager torch. The public functions are resolved on first use (PEP 562), so that importing the
package is cheap and a room that cannot be imported does not take the others with it.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attention import attention
    from .gmm import gmm_log_likelihood, linear_gmm_log_likelihood
    from .memory import memory_read
    from .ssim import ssim

# Public function -> the room (subpackage) that defines it.
ROOMS = {
    "attention": "attention",
    "ssim": "ssim",
    "memory_read": "memory",
    "gmm_log_likelihood": "gmm",
    "linear_gmm_log_likelihood": "gmm",
}

__all__ = ["attention", "backends", "gmm_log_likelihood", "linear_gmm_log_likelihood", "memory_read", "ssim"]


def backends(op=None):
    """What can compute each operator here, what ``backend="auto"`` picks on each device, and why the others cannot.

    Args:
        op: name of one public function, or None for all of them.

    Returns:
        For one operator ``{"auto": {device: backend}, "available": [backend, ...], "unavailable": {backend: reason}}``;
        for None a dict of these by operator name.

    Raises:
        ValueError: ``op`` is not the name of an operator.
    """
    if op is None:
        return {name: backends(name) for name in ROOMS}
    if op not in ROOMS:
        raise ValueError(f"op: {op!r} is not an operator; there are {', '.join(ROOMS)}")
    return importlib.import_module(f".{ROOMS[op]}.op", __name__).BACKENDS[op].describe()


def __getattr__(name: str) -> Any:
    if name not in ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(importlib.import_module(f".{ROOMS[name]}", __name__), name)
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """Keeps ``ssim`` and ``attention`` the functions: importing a room of that name would bind the module instead."""

    def __setattr__(self, name, value):
        if isinstance(value, types.ModuleType) and name in ROOMS:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
