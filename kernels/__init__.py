"""Fused operators for anomaly detection, usable alone: nothing here imports the rest of vitlite.

The folder can be copied into another project: imports are relative, and without the compiled extension beside it
the operators run on eager torch. The import of the package registers all operators with torch; kernels of Triton are
made at their first call.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._operator import Operator
    from .attention import attention as attention
    from .gmm import gmm_log_likelihood as gmm_log_likelihood
    from .gmm import linear_gmm_log_likelihood as linear_gmm_log_likelihood
    from .memory import memory_read as memory_read
    from .modules import SSIM as SSIM
    from .modules import GaussianMixtureHead as GaussianMixtureHead
    from .modules import MemoryRead as MemoryRead
    from .nearest import Bank as Bank
    from .nearest import nearest as nearest
    from .ssim import ssim as ssim

# The list of operators: public function -> the module that defines it and its `OPERATOR`. ``backends()``, the doctor,
# the benchmarks and the tests go by this list.
OPERATORS = {
    "attention": "attention.op",
    "ssim": "ssim.op",
    "memory_read": "memory.op",
    "nearest": "nearest.op",
    "gmm_log_likelihood": "gmm.op",
    "linear_gmm_log_likelihood": "gmm.linear",
}

# What else is public, and the module that defines it.
MORE = {"Bank": "nearest.op", "SSIM": "modules", "MemoryRead": "modules", "GaussianMixtureHead": "modules"}

__all__ = [*OPERATORS, *MORE, "backends"]


def operator(name: str) -> "Operator":
    """What stands behind a public function: its schemas, backends, eager version, and tensors for a small call.

    Args:
        name: name of a public function.

    Raises:
        ValueError: ``name`` is not the name of an operator.
    """
    if name not in OPERATORS:
        raise ValueError(f"op: {name!r} is not an operator; there are {', '.join(OPERATORS)}")
    return importlib.import_module(f".{OPERATORS[name]}", __name__).OPERATOR


def backends(op: str | None = None) -> dict[str, Any]:
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
        return {name: backends(name) for name in OPERATORS}
    return operator(op).backends.describe()


# Imported at once, which registers the operators: what was exported, or compiled ahead of time, can be loaded. The
# names are bound last, for ``ssim`` and ``attention`` are the functions, not their folders.
for _name, _module in {**OPERATORS, **MORE}.items():
    globals()[_name] = getattr(importlib.import_module(f".{_module}", __name__), _name)
