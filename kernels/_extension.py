"""Loads the compiled libraries once, remembers why one could not be loaded, and completes what they leave open.

torch's operator table is one for the whole process and its names are under ``NAMESPACE``. A second copy of this folder
under the same name (one installed, one copied into a project) therefore finds the operators of the first and uses
those, if the schemas are the same. ``python -m vitlite.kernels.vendor`` makes a copy under another name.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch

HERE = Path(__file__).parent
NAMESPACE = "vitlite"  # as in csrc/common/library.h
OPS = getattr(torch.ops, NAMESPACE)
# Dispatch key -> the library that brings its kernels.
LIBRARIES = {"CPU": "_C", "CUDA": "_C_cuda"}
# Instruction sets of the compiled operators for CPUs, by their level; VITLITE_ISA in the environment names one of them.
LEVELS = ("generic", "avx2", "avx512")

_definitions = torch.library.Library(NAMESPACE, "FRAGMENT")
_conflicts: dict[str, str] = {}


def registered_schema(op: str) -> str | None:
    """Schema of a registered operator as text, or None if nobody has defined it."""
    packet = getattr(OPS, op, None)
    return None if packet is None else str(packet.default._schema)


def _load(name: str) -> str | None:
    """None if the library is in place, or else the reason why not."""
    if name == "_C" and registered_schema("isa_level") is not None:
        return None  # another copy of this folder has brought it
    if name == "_C" and any(op.startswith(f"{NAMESPACE}::") for op in torch._C._dispatch_get_all_op_names()):
        return "another copy of these operators, without compiled ones, was imported before"
    if name == "_C_cuda" and registered_schema("ssim_forward") is not None and _has_compiled("ssim_forward", "CUDA"):
        return None  # likewise
    found = sorted(HERE.glob(f"{name}.*so")) + sorted(HERE.glob(f"{name}*.pyd"))
    if not found:
        return _build_reason(name)
    if name == "_C_cuda" and torch.version.cuda is None:
        return f"{found[0].name} needs a torch with CUDA, and this one is built without"
    try:
        torch.ops.load_library(found[0])
    except OSError as error:
        # torch names the file; why it does not go is in what the system said.
        return f"{found[0].name} could not be loaded: {' '.join(str(error.__cause__ or error).split())}"
    return None


def _build_reason(name: str) -> str:
    try:
        info = json.loads((HERE / "_build_info.json").read_text())
        reason = (info["cuda"] if name == "_C_cuda" else info)["reason"]
    except (OSError, ValueError, KeyError):
        reason = None
    if reason is None and (HERE / "csrc").exists():
        reason = f"python {HERE / 'csrc' / 'build.py'} compiles it"
    return f"{name} is not built" + (f": {reason}" if reason else "")


def _has_kernel(op: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{op}", key)


def _has_compiled(op: str, key: str) -> bool:
    # What this or another copy of the folder has completed in Python is no compiled kernel.
    return _has_kernel(op, key) and f"{NAMESPACE}/{op}/{key}" not in getattr(torch.library, "_impls", ())


# Library -> None, or the reason why it is not there.
errors = {name: _load(name) for name in LIBRARIES.values()}


def define(schema: str, fake: Callable) -> None:
    """Makes sure that an operator exists, and tells torch.compile and export the shapes that it returns.

    Args:
        schema: such as "ssim_forward(Tensor x, ...) -> Tensor", the same text as in csrc/library.cpp.
        fake: function of the same arguments that returns empty tensors of the right shapes and dtypes.
    """
    op = schema[: schema.index("(")]
    wanted = torch._C.parse_schema(f"{NAMESPACE}::{schema}")
    present = registered_schema(op)
    if present is None:
        _definitions.define(schema)
    elif present != str(wanted):
        _conflicts[op] = f"the {op} that is loaded has another schema; build {NAMESPACE} again ({present})"
        return
    try:
        torch.library.register_fake(f"{NAMESPACE}::{op}", fake, lib=_definitions)
    except RuntimeError as error:
        if "already has" not in str(error):
            raise  # only a second copy of this folder may find it done


def instruction_set() -> str | None:
    """Name of the instruction set that the compiled operators for CPUs use, or None if they are not there.

    Raises:
        RuntimeError: VITLITE_ISA names none, or one that the processor does not have.
    """
    return None if errors["_C"] is not None else LEVELS[OPS.isa_level(-1)]


def complete(op: str, function: Callable, key: str) -> None:
    """Lets a Python function serve an operator for a dispatch key, unless something does already."""
    if op not in _conflicts and not _has_kernel(op, key):
        _definitions.impl(op, function, key)


def conflict(name: str) -> str | None:
    """None, or the reason in one line why forward or backward of an operator is another one than ours."""
    return _conflicts.get(f"{name}_forward") or _conflicts.get(f"{name}_backward")


def why_not(name: str, key: str = "CPU") -> str | None:
    """None if compiled kernels serve both steps of an operator for this key, or else the reason in one line."""
    if conflict(name) is not None:
        return conflict(name)
    missing = [step for step in ("forward", "backward") if not _has_compiled(f"{name}_{step}", key)]
    if not missing:
        return None
    return errors[LIBRARIES[key]] or f"{LIBRARIES[key]} has no {name}_{missing[0]}; build {NAMESPACE} again"
