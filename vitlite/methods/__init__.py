"""The published methods by name. A new method is one file, and one line here."""

import importlib
from typing import TYPE_CHECKING

from vitlite.errors import UserError

if TYPE_CHECKING:
    from vitlite.methods.base import Method

# name: (module, class)
REGISTRY = {
    "sivt": ("vitlite.methods.sivt", "SIVT"),
    "anovit": ("vitlite.methods.anovit", "AnoViT"),
    "l2cae": ("vitlite.methods.l2cae", "L2CAE"),
    "memca": ("vitlite.methods.memca", "MemCA"),
    "vtadl": ("vitlite.methods.vtadl", "VTADL"),
    "isstad": ("vitlite.methods.isstad", "ISSTAD"),
    "knn": ("vitlite.methods.knn", "KNN"),
    "dinomaly": ("vitlite.methods.dinomaly", "Dinomaly"),
}
DEFAULT = "sivt"


def method_class(name: str) -> "type[Method]":
    """The class of a method, a :class:`~vitlite.methods.base.Method`. Raises UserError for an unknown name."""
    if name not in REGISTRY:
        raise UserError(f"`method={name}`: not a method of this version; there are {', '.join(REGISTRY)}")
    module, attribute = REGISTRY[name]
    return getattr(importlib.import_module(module), attribute)
