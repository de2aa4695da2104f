"""The CUDA kernels run on the processor: the same sources, compiled with emulation.h in the place of CUDA's runtime."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

CLONE = Path(__file__).parents[2]
CSRC = CLONE / "csrc"
EMULATION = Path(__file__).parent / "cuda"
# Threads in two orders: a result that needs one of them lacks a barrier.
RUN = """
import os, sys, torch
torch.ops.load_library(sys.argv[1])
import pytest
for order in ("", "1"):
    if order:
        os.environ["VITLITE_EMULATED_ORDER"] = order
    if pytest.main(sys.argv[2:]):
        sys.exit(1)
"""


def cuda_headers():
    """The folder with cuda_fp16.h, or None."""
    homes = [os.environ.get("CUDA_HOME", "/usr/local/cuda"), "/usr/local/cuda"]
    found = [Path(home) / "include" for home in homes] + list(Path(torch.__file__).parents[1].glob("nvidia/*/include"))
    return next((folder for folder in found if (folder / "cuda_fp16.h").exists()), None)


@pytest.fixture(scope="session")
def emulated(tmp_path_factory):
    """A library with the operators' schemas, served for CPU tensors by the CUDA kernels."""
    if not (CSRC / "cuda").exists():
        pytest.skip("not a clone")
    headers, compiler = cuda_headers(), shlex.split(os.environ.get("CXX", "c++"))
    if headers is None:
        pytest.skip("CUDA's headers (cuda_fp16.h) are not installed")
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is not installed")
    from torch.utils.cpp_extension import include_paths, library_paths

    folder = tmp_path_factory.mktemp("emulated")
    flags = ["-std=c++20", "-O0", "-w", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden", f"-I{CSRC / 'cuda'}"]
    flags += [f'-DVITLITE_EMULATION="{EMULATION / "emulation.h"}"', f"-isystem{headers}"]
    flags += [f'-DVITLITE_EMULATION_TORCH="{EMULATION / "emulation_torch.h"}"']
    with_torch = [f"-isystem{path}" for path in include_paths()] + ["-DTORCH_TARGET_VERSION=0x020a000000000000"]

    def compiled(source):
        # The operators are registered for the processor instead.
        text = source.read_text().replace("VITLITE_KERNELS(CUDA, m)", "VITLITE_KERNELS(CPU, m)")
        target = folder / f"{source.stem}{source.suffix}.o"
        more = with_torch if source.suffix == ".cpp" else []
        command = [*compiler, *flags, f"-I{source.parent}", *more, "-x", "c++", "-", "-c", "-o", str(target)]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return str(target)

    sources = [CSRC / "library.cpp", *(CSRC / "cuda").glob("*.cpp"), *(CSRC / "cuda").glob("*.cu")]
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", 0)) or os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    library = folder / "emulated.so"
    link = [*compiler, "-shared", *objects, *(f"-L{path}" for path in library_paths()), "-ltorch", "-ltorch_cpu"]
    subprocess.run([*link, "-lc10", "-o", str(library)], check=True)
    return library


def test_the_kernels_are_right(emulated):
    environment = {**os.environ, "VITLITE_EMULATED_KERNELS": "1"}
    environment.pop("VITLITE_EMULATED_ORDER", None)
    tests = str(Path(__file__).parent / "test_cuda_ops.py")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(emulated), "-q", "-p", "no:cacheprovider", tests],
        cwd=CLONE,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    forwards, backwards = map(int, re.findall(r"(\d+) passed", done.stdout))
    assert forwards == backwards > 50
    assert "skipped" not in done.stdout
