"""Reading a checkpoint file, and matching its tensors with those of a module."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitlite.errors import UserError, first_line

# Where training scripts put the weights inside a checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema")


def read(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint by key, on the CPU. Never unpickles anything but tensors. Raises UserError."""
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"`weights={path}`: {kind}; give 'auto', 'none' or the path of a checkpoint file")
    try:
        content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except pickle.UnpicklingError as error:  # torch's text tells how to load it all the same
        mend = "give a file that `torch.save` made of a state dict, or a .safetensors file"
        raise UserError(f"`weights={path}`: not a checkpoint of plain tensors; {mend}") from error
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise UserError(f"`weights={path}`: not a checkpoint of plain tensors: {first_line(error)}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    named = ((key, value) for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor))
    tensors = {key.removeprefix("module."): value for key, value in named}
    if not tensors:
        raise UserError(f"weights {path} hold no tensors")
    return tensors


def _read_torch(path: Path) -> dict[str, Any]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not a dictionary")
    return content


_SAFETENSORS_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The format is eight bytes of length, a JSON table of dtype, shape and offsets, and the raw numbers."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    if start > len(data):
        raise ValueError("the file is shorter than its header says")
    tensors = {}
    for key, entry in json.loads(data[8:start].decode()).items():
        dtype = _SAFETENSORS_DTYPES.get(entry.get("dtype"))
        if dtype is None:
            continue  # metadata and integer counters
        begin, end = (start + offset for offset in entry["data_offsets"])
        if end > len(data):
            raise ValueError("the file is shorter than its header says")
        count = (end - begin) // dtype.itemsize
        # cloned: offsets need not be aligned, and the rest of the file should not stay in memory
        flat = torch.frombuffer(bytearray(data[begin:end]), dtype=dtype, count=count) if count else torch.empty(0)
        tensors[key] = flat.reshape(entry["shape"])
    return tensors


def match(
    what: str,
    path: os.PathLike | str,
    names: dict[str, str],
    wanted: dict[str, Tensor],
    tensors: dict[str, Tensor],
    ignored: tuple[str, ...],
) -> dict[str, Tensor]:
    """The tensors of a file that a module asks for, under the module's own keys.

    what, path: the network and the file, for messages.
    names: the module's keys -> the file's, also of parts that were not built: a deeper network of the same family would
        otherwise pass unnoticed, because every key of the file must be known.
    wanted: the module's state dict.
    ignored: beginnings of keys that the module does not need.
    Raises UserError, which lists what is missing, of another shape or unknown.
    """
    found, missing, misshapen = {}, [], []
    for ours, theirs in names.items():
        if ours not in wanted:
            continue
        if theirs not in tensors:
            missing.append(theirs)
        elif tensors[theirs].shape != wanted[ours].shape:
            misshapen.append(f"{theirs} {tuple(tensors[theirs].shape)} instead of {tuple(wanted[ours].shape)}")
        else:
            found[ours] = tensors[theirs]
    known = set(names.values())
    others = (key for key in tensors if key not in known and not key.startswith(ignored))
    unknown = [key for key in others if not key.endswith("num_batches_tracked")]
    faults = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in (("missing", missing), ("of another shape", misshapen), ("unknown", unknown))
        if keys
    ]
    if faults:
        raise UserError(f"weights {path} do not fit {what}: {'; '.join(faults)}")
    return found
