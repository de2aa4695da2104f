"""How much memory a network and a step of its training take at least, and how much this machine has.

Some systems promise memory that they do not have, and then end the process without a word. A line before is better.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitlite.errors import UserError
from vitlite.methods.base import Method, Stage
from vitlite.methods.config import TrainingConfig

log = logging.getLogger(__name__)

FLOAT = 4  # bytes
TRAINED = 3  # floats for each weight in training: itself, its gradient, and at least one moment of an optimiser
BLOCK = 20_000  # bytes of a block's Python objects, at least
SMALL = (128, 256)  # sides of the images by which a step is measured
MEASURED_FROM = 3_000_000  # pixels of a step; nothing is measured for fewer, as all presets have
PEAK = 1.2  # times what a forward pass keeps: what a step takes, about


def machine_memory(root: Path = Path("/")) -> tuple[float, float]:
    """(what this process can get, what is free of it), in bytes, with swap; infinite if the system does not say it.

    The limit of a control group, as containers have it, counts. ``root``: where the system says it.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
        held = {name: 1024 * int(text.split()[0]) for name, _, text in (line.partition(":") for line in lines)}
        swap, free = held["SwapTotal"], held["MemAvailable"] + held["SwapFree"]
    except (OSError, ValueError, KeyError, IndexError):
        return math.inf, math.inf
    limit = min((one + swap for one in _control_groups(root)), default=math.inf)
    return min(held["MemTotal"] + swap, limit), min(free, limit)


def _control_groups(root: Path) -> Iterator[int]:
    """The limits of the control groups that this process is in."""
    groups = root / "sys/fs/cgroup"
    files = [groups / "memory/memory.limit_in_bytes"]
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            own = Path(line.rpartition(":")[2].lstrip("/"))
            files += [groups / place / "memory.max" for place in (own, *own.parents)]
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            yield int(file.read_text(encoding="utf-8"))


def refuse_too_deep(config: TrainingConfig, *, trained: bool) -> None:
    """``UserError`` if the transformer blocks of a config alone do not fit into this machine's memory.

    ``trained``: with their gradients, and what an optimiser keeps.
    """
    sizes: dict[tuple[str, str], float] = {}
    for depth, width in (("depth", "dim"), ("encoder_depth", "dim"), ("decoder_depth", "decoder_dim")):
        width = width if hasattr(config, width) else "dim"
        numbers = (4 + 2 * getattr(config, "mlp_ratio", 4)) * getattr(config, width, 0) ** 2
        weights = FLOAT * numbers * (TRAINED if trained else 1)
        sizes[depth, width] = getattr(config, depth, 0) * (BLOCK + weights)
    total, need = machine_memory()[0], sum(sizes.values())
    if need > total:
        depth, width = max(sizes, key=lambda names: sizes[names])
        usual = type(config)()
        times = [getattr(config, name, 1) / getattr(usual, name, 1) for name in (depth, width)]
        key = depth if times[0] >= times[1] ** 2 else width
        config.refuse(key, f"the network takes at least {_gb(need)}, and this machine has {_gb(total)}; give less")


def refuse_too_large(kind: type[Method], config: TrainingConfig, images: int) -> None:
    """``UserError`` if a step of training on the CPU cannot fit into this machine's memory; a warning if it may not.

    There are so many training ``images``, and ``precision`` is not "auto".
    """
    pixels = math.prod(config.image_shape)
    if not config.trains or pixels * min(config.batch_size, images) < MEASURED_FROM:
        return
    need, (total, free) = step_memory(kind, config, images), machine_memory()
    usual = type(config)()
    key, other = "tile" if config.tile else "image_size", "batch_size"
    if pixels / math.prod(usual.image_shape) < config.batch_size / usual.batch_size:
        key, other = other, key
    text = f"a training step takes at least {_gb(need)}, and this machine has {_gb(total)}"
    if need > total:
        config.refuse(key, f"{text}; give less, or a smaller {other}")
    if PEAK * need > free:
        line = "%s=%s: %s, %s of them free; if it is stopped without a word, give less, or a smaller %s"
        log.warning(line, key, getattr(config, key), text, _gb(free), other)


def _gb(size: float) -> str:
    return f"{size / 1e9:{'.0f' if size >= 1e10 else '.1f'}} GB"


def step_memory(kind: type[Method], config: TrainingConfig, images: int) -> float:
    """The bytes, at least, that a step of training keeps for its gradients; there are so many training ``images``.

    Measured by a small image of two sizes: what is kept grows at least in proportion to the pixels. 0 for a network
    that cannot have these sizes.
    """
    first = config.side_multiple * math.ceil(SMALL[0] / config.side_multiple)
    second = max(2 * first, config.side_multiple * math.ceil(SMALL[1] / config.side_multiple))
    whole: dict[str, Any] = {"tile": 0} | ({"crop": 0} if hasattr(config, "crop") else {})
    try:
        small = [replace(config, image_size=side, **whole) for side in (first, second)]
    except UserError:
        return 0.0
    with torch.random.fork_rng(devices=[]):
        kept = [kept_by_stage(kind, one) for one in small]
    found = [0.0]
    for (stage, less), (_, more) in zip(*kept):
        growth = max(0.0, (more - less) / (second**2 - first**2))
        batch = -(-min(stage.batch_size or config.batch_size, images) // config.accumulate)
        found.append(batch * (less + growth * (math.prod(config.image_shape) - first**2)))
    return max(found) / (2 if config.precision == "bfloat16" else 1)


def kept_by_stage(kind: type[Method], config: TrainingConfig) -> list[tuple[Stage, int]]:
    """The bytes that the forward pass of one image keeps for its gradients, in each stage of training, in float32."""
    method = kind(config, weights="none").train()
    features = method.frozen(torch.zeros(1, 3, *config.image_shape))
    own = {_place(tensor) for tensor in (*method.parameters(), *method.buffers(), features)}
    found = []
    for stage in method.stages():
        method.begin(stage)
        sizes = {_place(one): one.untyped_storage().nbytes() for one in _kept_by(method, features)}
        found.append((stage, sum(size for place, size in sizes.items() if place not in own)))
    return found


def _kept_by(method: Method, features: Tensor) -> list[Tensor]:
    """The tensors that the forward pass keeps."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        method.loss(features)
    return kept


def _place(tensor: Tensor) -> int:
    """The same for tensors that share their memory."""
    return tensor.untyped_storage().data_ptr()
