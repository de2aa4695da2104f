"""The nearest rows of a bank."""

from .op import Bank, nearest

__all__ = ["Bank", "nearest"]
