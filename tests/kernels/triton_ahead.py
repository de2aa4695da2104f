"""Compiles recorded Triton launches for graphics processors that need not be here, and reads what they use."""

import gc
import re
import subprocess
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

NAMES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
    torch.int64: "i64",
}


def source_of(launch):
    """The kernel of a recorded launch, specialised as Triton would for these arguments.

    What is noted of each argument is what Triton 3.9 notes, which then finds in its cache what was compiled here.
    """
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        name = parameter.name
        value = launch.constants[name] if name in launch.constants else launch.arguments[name]
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[name] = "constexpr"
            constants[index,] = value
            attributes[index,] = []
            continue
        if isinstance(value, torch.Tensor):
            signature[name] = "*" + NAMES[value.dtype]
            offset = value.storage_offset() * value.element_size()
        elif isinstance(value, float):
            signature[name] = "fp64"
            continue
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            offset = value
        attributes[index,] = [["tt.divisibility", 16]] if offset % 16 == 0 else []
    return ASTSource(launch.kernel, signature, constants, attributes)


def compile_launch(launch, capability):
    return triton.compile(source_of(launch), target=GPUTarget("cuda", capability, 32), options=launch.options)


# Bytes of shared memory that a program may have.
SHARED = {80: 166912, 90: 232448, 100: 232448}
GRID = (2**31 - 1, 65535, 65535)


class PretendedDriver:
    """In the place of Triton's driver for CUDA: it has a GPU that takes every kernel and runs none.

    Arguments are bound, specialised and compiled for by Triton itself, and its limits are checked, as at a real launch.
    ``taken`` are the compiled kernels with their grids.
    """

    def __init__(self, capability):
        self.target, self.taken, self.utils = GPUTarget("cuda", capability, 32), [], self

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_device_properties(self, device):
        return {"max_shared_mem": SHARED[self.target.arch]}

    def load_binary(self, name, binary, shared, device):
        return object(), 1, 32, 0, 1024  # module, function, registers, spills, most threads

    def unload_module(self, module):
        pass

    def launcher_cls(self, source, metadata):
        def launcher(x, y, z, stream, function, packed, launched, enter, leave, *arguments):
            assert all(0 < size <= most for size, most in zip((x, y, z), GRID)), (source.name, x, y, z)
            assert len(arguments) == len(source.signature)
            self.taken.append((source, (x, y, z)))

        return launcher


def launched(launches, capability):
    """[(source, grid)] of recorded launches, by Triton's own way of launching them."""
    from triton.runtime.driver import driver

    pretended = PretendedDriver(capability)
    before = driver._active
    driver.set_active(pretended)
    try:
        for launch in launches:
            launch.kernel[launch.grid](**launch.arguments, **launch.constants, **launch.options)
    finally:
        # Kernels that were "loaded" are unloaded when they go, by the driver that is active then.
        for launch in launches:
            launch.kernel.device_caches.clear()
        gc.collect()
        driver._active = before
    return pretended.taken


def resources(compiled):
    """Registers a thread, bytes of shared memory, and bytes that a thread spills."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        printed = _output(triton.knobs.nvidia.cuobjdump.path, "-res-usage", cubin)
        used = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", printed)}
        spilled = used["STACK"] + used["LOCAL"]
        if spilled:
            # Not all that is on the stack is spilled: the assembler tells.
            ptx = Path(folder) / "kernel.ptx"
            ptx.write_text(compiled.asm["ptx"])
            target = re.search(r"\.target (sm_\w+)", compiled.asm["ptx"])[1]
            printed = _output(_assembler(), "-v", "--gpu-name", target, ptx, "-o", Path(folder) / "again.cubin")
            spilled = max(int(number) for number in re.findall(r"(\d+) bytes spill stores", printed))
    return {"registers": used["REG"], "shared": compiled.metadata.shared, "spilled": spilled}


def _assembler():
    """The newest of those that come with Triton: it knows every target and every version of PTX."""
    newest = getattr(triton.knobs.nvidia, "ptxas_blackwell", None)
    return (newest or triton.knobs.nvidia.ptxas).path


def _output(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
