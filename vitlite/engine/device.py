"""Where and in which number format the computing is done."""

import contextlib
import ctypes
import sys

import torch

from vitlite.errors import UserError


def pick_device(name="auto"):
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` as a device that is there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: must be auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this torch sees no CUDA device; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device


def has_fast_bfloat16(device):
    """Whether bfloat16 matrix products beat float32 there (CUDA from Ampere on; AVX512-BF16 or AMX on a CPU)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _cpu_says("_is_avx512_bf16_supported") or _cpu_says("_is_amx_tile_supported")


def _cpu_says(question):
    # Not a documented interface: a torch without it just trains in float32.
    return bool(getattr(torch.cpu, question, lambda: False)())


def autocast(precision, device):
    """The autocast context for a config's ``precision``; ``auto`` is bfloat16 where that is fast."""
    if precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def keep_freed_memory():
    """Tell glibc to reuse large freed blocks instead of returning them to the system.

    By default every tensor over a few megabytes is a fresh mapping whose pages fault in again: on two CPU cores that
    took a third of a training step. No effect, and no harm, where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
