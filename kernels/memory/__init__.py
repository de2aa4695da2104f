"""Reading from a memory of normal patterns."""

from .op import memory_read

__all__ = ["memory_read"]
