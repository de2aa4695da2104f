"""The mixture density network of VT-ADL, for graphs that are exported as well."""

from vitlite.kernels import GaussianMixtureHead
from vitlite.nn.portable import operator_backend


class MixtureDensity(GaussianMixtureHead):
    """:class:`vitlite.kernels.GaussianMixtureHead`, by torch's operators while a graph is exported."""

    def chosen_backend(self) -> str:
        """torch's operators while a graph is exported."""
        return operator_backend()
