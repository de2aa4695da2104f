"""The published methods by name: ``create("sivt", config)``. A new method is one file and one line here."""

import importlib

# name: (module, class)
REGISTRY = {"sivt": ("vitlite.methods.sivt", "SIVT")}


def method_class(name):
    """The class of a method. Raises ``UserError`` naming the methods there are."""
    from vitlite.errors import UserError

    if name not in REGISTRY:
        raise UserError(f"--method {name}: not a method of this version; there are {', '.join(REGISTRY)}")
    module, attribute = REGISTRY[name]
    return getattr(importlib.import_module(module), attribute)
