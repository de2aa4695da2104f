"""The memory of MemCA, for graphs that are exported as well."""

from vitlite.kernels import MemoryRead
from vitlite.nn.portable import operator_backend


class MemoryModule(MemoryRead):
    """:class:`vitlite.kernels.MemoryRead`, by torch's operators while a graph is exported."""

    def chosen_backend(self) -> str:
        """torch's operators while a graph is exported."""
        return operator_backend()
