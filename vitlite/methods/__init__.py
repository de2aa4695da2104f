"""The published methods by name: ``create("sivt", config)``. A new method is one file and one line here."""

import importlib

# name: (module, class)
REGISTRY = {
    "sivt": ("vitlite.methods.sivt", "SIVT"),
    "anovit": ("vitlite.methods.anovit", "AnoViT"),
    "l2cae": ("vitlite.methods.l2cae", "L2CAE"),
    "memca": ("vitlite.methods.memca", "MemCA"),
    "vtadl": ("vitlite.methods.vtadl", "VTADL"),
    "isstad": ("vitlite.methods.isstad", "ISSTAD"),
}


def method_class(name):
    """The class of a method. Raises ``UserError`` naming the methods there are."""
    from vitlite.errors import UserError

    if name not in REGISTRY:
        raise UserError(f"--method {name}: not a method of this version; there are {', '.join(REGISTRY)}")
    module, attribute = REGISTRY[name]
    return getattr(importlib.import_module(module), attribute)
