"""Training on several processes: ``torchrun --nproc-per-node N -m vitlite train ...``.

Every process holds the whole method and takes its part of each batch; gradients are summed. What a method draws for a
whole batch (SIVT's split into subsets) is the same in all of them, and the loss curve is that of one process. Batch
norms take their statistics from all processes. What a method draws for each image (ISSTAD's corruption, augmentation,
VT-ADL's noise) differs from process to process, and comes from the step's own seed, so that a resumed run draws it too.
"""

import contextlib
import ctypes
import functools
import importlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

from vitlite.errors import UserError

T = TypeVar("T")

TRIES, WORTH = 15, 0.8  # of bfloat16: see ``bfloat16_is_faster``

_process = os.getpid()  # whose threads torch uses


@dataclass(frozen=True)
class Team:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and logs."""
        return self.rank == 0

    def part(self, indices: Tensor) -> tuple[Tensor, int]:
        """This process's part of a batch, and how many of its images count: 0 with fewer images than processes.

        A process without an image computes the first one all the same, to draw the same random numbers as the others.
        """
        own = indices.tensor_split(self.size)[self.rank]
        return (own, len(own)) if len(own) else (indices[:1], 0)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def agree(self, value: T) -> T:
        """What the process that leads has."""
        values = [value]
        if self.size > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def add_up(self, parameters: Iterable[Tensor], values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sum gradients in place over all processes; returns the sums of the scalars ``values``."""
        if self.size == 1:
            return values
        gradients = [p.grad for p in parameters if p.grad is not None]
        numbers = torch.stack(list(values.values()))
        flat = torch.cat([g.reshape(-1).float() for g in gradients] + [numbers])
        distributed.all_reduce(flat)
        *sums, numbers = flat.split([g.numel() for g in gradients] + [len(values)])
        for gradient, total in zip(gradients, sums):
            gradient.copy_(total.view_as(gradient))
        return dict(zip(values, numbers.unbind()))


ALONE = Team()


@contextlib.contextmanager
def join(device: str) -> Iterator[tuple[Team, torch.device]]:
    """The team that torchrun started this process in (alone without torchrun), and this process's device.

    At the end the team is dissolved. Only the process that leads logs anything meanwhile.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    place = pick_device(device)
    if size == 1 or not distributed.is_available():
        yield ALONE, place
        return
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    # Imported before there is a process group: its functions hold the group of that moment as a default argument. Then
    # the group's threads would outlive the team, and one of them could abort the process when the interpreter ends.
    importlib.import_module("torch.distributed.nn.functional")
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    team = Team(distributed.get_rank(), size)
    logger = logging.getLogger("vitlite")
    before = logger.level
    if not team.leads:
        logger.setLevel(logging.ERROR)
    try:
        yield team, place
    finally:
        logger.setLevel(before)
        distributed.destroy_process_group()


def pick_device(name: str = "auto") -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` as a device that is there, for this process to compute on.

    Every computation begins here, so a process that was forked after this module was imported changes to one thread.
    """
    compute_alone_after_fork()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"`device={name}`: must be auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"`device={name}`: this torch sees no CUDA device; use `device=cpu`")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"`device={name}`: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device


def compute_alone_after_fork() -> None:
    """Set torch to one thread, once in every forked process.

    OpenMP there counts on the threads of the process before the fork, which are gone, and waits for them forever.
    With one thread nothing waits.
    """
    global _process
    if _process != os.getpid():
        _process = os.getpid()
        torch.set_num_threads(1)


def device_name(device: torch.device) -> str:
    """What the device is, for people: the GPU's name, or the number of threads."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products beat float32 there (CUDA from Ampere on; AMX or fast AVX512-BF16 on a CPU)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _cpu_says("_is_amx_tile_supported") or (_cpu_says("_is_avx512_bf16_supported") and bfloat16_is_faster())


@functools.cache
def bfloat16_is_faster() -> bool:
    """Whether a product of a transformer takes at most ``WORTH`` of the time of float32, measured once.

    AVX512-BF16 halves the time on some processors and doubles it on others.
    """
    tokens, weights = torch.ones(512, 192), torch.ones(768, 192)
    took = {torch.float32: math.inf, torch.bfloat16: math.inf}
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        for _ in range(TRIES):
            for dtype in took:
                x, w = tokens.to(dtype), weights.to(dtype)
                began = time.perf_counter()
                F.linear(x, w)
                took[dtype] = min(took[dtype], time.perf_counter() - began)
    return took[torch.bfloat16] <= WORTH * took[torch.float32]


def _cpu_says(question: str) -> bool:
    # Not a documented interface: a torch without it just trains in float32.
    return bool(getattr(torch.cpu, question, lambda: False)())


def decided(precision: str, device: torch.device) -> str:
    """A config's ``precision``; for ``auto`` bfloat16 if the device is fast at it, and float32 if not."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_fast_bfloat16(device) else "float32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The autocast context for a config's ``precision``."""
    if decided(precision, device) == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def keep_freed_memory() -> None:
    """Tell glibc to reuse large freed blocks instead of returning them to the system.

    By default every tensor over a few megabytes is a fresh mapping whose pages fault in again: on two CPU cores that
    took a third of a training step. With another C library it has no effect.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it when torch first uses it in a process


@contextlib.contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Within it an operator whose result may differ from run to run raises ``UserError`` that names it.

    On the CPU all of vitlite gives the same numbers without it; it is for GPUs, where some of torch's operators add up
    in the order in which threads finish, and for methods of one's own. torch's settings are restored afterwards.
    Without ``wanted`` nothing happens.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tuning, workspace = torch.backends.cudnn.benchmark, os.environ.get(CUBLAS)
    os.environ.setdefault(CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "eterministic" not in str(error):
            raise
        raise UserError(f"`deterministic=True`: {complaint(error)}; leave it out, or use `device=cpu`") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = tuning
        if workspace is None:
            os.environ.pop(CUBLAS, None)


def complaint(error: Exception) -> str:
    """What torch says about the operator, without its advice to programmers."""
    return str(error).strip().splitlines()[0].split(", but you set")[0].split(". You can")[0][:200]
