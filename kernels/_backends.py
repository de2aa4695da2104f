"""Which backend serves a call: the table behind ``backend=`` and ``backends()``."""

from typing import Any

import torch
from torch.autograd import forward_ad

DEVICES = ("cpu", "cuda")


def transformed() -> bool:
    """Whether a transform of torch.func or forward-mode differentiation is going on."""
    return forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None


# torch.compile asks it while it traces, when the transforms of the traced function go on, and compiles again if those
# around the compiled one change. This is torch.compiler.assume_constant_result without its import of the compiler.
transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


class Backends:
    """The backends of one operator, best first.

    Availability is settled when the table is made, not when an operator is called: a call is one dictionary look-up,
    which torch.compile traces without a graph break.

    Args:
        op: name of the public function, for messages.
        table: (backend, device type or None for every device, None if available or else the reason why not).
    """

    def __init__(self, op: str, table: list[tuple[str, str | None, str | None]]) -> None:
        self.op = op
        self.table = table
        self.choice = {}
        self.everywhere = [name for name, device, reason in table if device is None and reason is None]
        for name, device, reason in reversed(table):
            for covered in DEVICES if device is None else (device,):
                if reason is None:
                    self.choice["auto", covered] = self.choice[name, covered] = name

    def pick(self, backend: Any, device: str) -> str:
        """Name of the backend that serves ``backend`` on this device type; a ValueError says why there is none."""
        if transformed():
            return self.pick_for_transforms(backend, device)
        chosen = self.choice.get((backend, device)) if isinstance(backend, str) else None
        return self.fallback(backend, device) if chosen is None else chosen

    def pick_for_transforms(self, backend: Any, device: str) -> str:
        """What torch.func and forward-mode derivatives can look into: torch's own operators."""
        if backend == "auto" and "eager" in self.everywhere:
            return "eager"
        chosen = (isinstance(backend, str) and self.choice.get((backend, device))) or self.fallback(backend, device)
        if chosen not in self.everywhere:
            raise ValueError(f"backend: {backend!r} of {self.op} has no torch.func and no forward mode; use 'auto'")
        return chosen

    def fallback(self, backend: Any, device: str) -> str:
        if self.everywhere and device not in DEVICES and backend in ("auto", *self.everywhere):
            return self.everywhere[0] if backend == "auto" else backend
        reasons = [
            reason for name, where, reason in self.table if name == backend and where in (None, device) and reason
        ]
        known = list(dict.fromkeys(name for name, _, _ in self.table))
        if reasons:
            raise ValueError(f"backend: {backend!r} of {self.op} is not available: {reasons[0]}")
        if backend in known:
            raise ValueError(f"backend: {backend!r} of {self.op} does not run on {device} tensors")
        raise ValueError(f"backend: {backend!r} is not one of auto, {', '.join(known)}")

    def describe(self) -> dict[str, Any]:
        """The entry of ``backends()`` for this operator."""
        return {
            "auto": {device: self.choice["auto", device] for device in DEVICES if ("auto", device) in self.choice},
            "available": list(dict.fromkeys(name for name, _, reason in self.table if reason is None)),
            "unavailable": {name: reason for name, _, reason in reversed(self.table) if self._nowhere(name)},
        }

    def _nowhere(self, name: str) -> bool:
        return all(reason is not None for other, _, reason in self.table if other == name)
