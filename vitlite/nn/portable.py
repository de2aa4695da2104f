"""Which operators an exported graph is made of."""

import torch


def operator_backend() -> str:
    """``backend=`` for the fused operators: their own choice, or torch's operators while a graph is exported.

    An exported file is run where vitlite is not installed.
    """
    return "eager" if torch.compiler.is_exporting() else "auto"
