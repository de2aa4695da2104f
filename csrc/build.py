"""How ``_C`` is compiled from this folder, for setup.py.

In a copy of the operators, ``python csrc/build.py`` compiles it beside them; with ``VITLITE_CUDA=1`` ``_C_cuda``,
too. It needs torch, setuptools and a C++ compiler.
"""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

HERE = Path(__file__).resolve().parent
# The stable ABI of the oldest torch that the operators accept: one build runs with that and every later one.
TARGET_TORCH = "0x020a000000000000"


class BuildLibrary(BuildExtension):
    """torch's build command for libraries that are no Python modules."""

    def get_export_symbols(self, ext: object) -> list[str]:
        """None: torch loads them, and they register themselves."""
        return []


def library(name: str) -> Any:
    """The library for processors as an extension of setuptools, whose paths count from the working folder."""
    if sys.platform == "win32":
        flags = ["/O2", "/std:c++20"]
    else:
        # Comparisons, infinities and NaN keep their meaning, and only what is written fused is fused.
        flags = ["-O3", "-std=c++20", "-g0", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno"]
        # Vectors are passed between inlined functions only; GCC's own AVX-512 headers trip the other warning.
        flags += ["-Wno-psabi", "-Wno-maybe-uninitialized", "-Wno-unknown-warning-option"]
    sources = [HERE / "library.cpp", *HERE.glob("cpu/*.cpp")]
    return CppExtension(
        name,
        sorted(os.path.relpath(path) for path in sources),
        depends=sorted(os.path.relpath(path) for path in HERE.glob("**/*.h")),
        extra_compile_args=flags,
        define_macros=[("TORCH_TARGET_VERSION", TARGET_TORCH)],
        py_limited_api=True,
    )


def cuda_builder() -> Any:
    """The module that compiles the library for GPUs."""
    spec = importlib.util.spec_from_file_location("cuda_build", HERE / "cuda" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Compile into the folder above this one."""
    target = HERE.resolve().parent
    os.chdir(HERE)
    with tempfile.TemporaryDirectory() as temporary:
        setup(
            name="operators",
            ext_modules=[library("_C")],
            cmdclass={"build_ext": BuildLibrary},
            script_args=["-q", "build_ext", "--build-lib", str(target), "--build-temp", temporary],
        )
        if os.environ.get("VITLITE_CUDA") == "1":
            cuda_builder().build(target, temporary)


if __name__ == "__main__":
    main()
