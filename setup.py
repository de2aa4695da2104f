"""Package map and the optional compiled extensions; everything else is in pyproject.toml.

The fused operators are compiled when torch and a C++ compiler are visible to the build, which needs
``pip install --no-build-isolation``. Otherwise the package installs as pure Python and ``vitlite doctor`` says so.
``VITLITE_NO_EXT=1`` skips the compilation, ``VITLITE_REQUIRE_EXT=1`` makes an installation without it fail. A wheel
without compiled operators is named py3-none-any.

``VITLITE_CUDA=1`` compiles the GPU operators besides, ``vitlite.kernels._C_cuda`` from csrc/cuda, if nvcc is there.
Neither library needs the other.
"""

import importlib.util
import json
import os
import sys
import tempfile
from glob import glob
from typing import Any

from setuptools import find_namespace_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

# Top-level folders that install under the package, so that no plain `kernels`, `cli` or `bench` lands in site-packages.
ROOMS = {"vitlite.kernels": "kernels", "vitlite.cli": "cli", "vitlite.bench": "bench"}
# What became of the compilation, for `vitlite doctor`; installed beside the operators.
BUILD_INFO = "_build_info.json"


def package_map() -> list[str]:
    packages = ["vitlite", *(f"vitlite.{p}" for p in find_namespace_packages("vitlite") if "__pycache__" not in p)]
    for name, folder in ROOMS.items():
        packages.append(name)
        packages += [f"{name}.{p}" for p in find_namespace_packages(folder, exclude=["results*", "__pycache__*"])]
    return packages


def is_set(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def why_no_extensions() -> str | None:
    """None if the extensions can be compiled here, or else the reason why not."""
    if is_set("VITLITE_NO_EXT"):
        return "VITLITE_NO_EXT was set when vitlite was installed"
    try:
        import torch.utils.cpp_extension  # noqa: F401
    except ImportError as error:
        return (
            f"torch could not be imported when vitlite was installed ({error}); "
            "install torch first, then vitlite with pip install --no-build-isolation"
        )
    return None


def csrc_build() -> Any:
    """csrc/build.py, which knows how the sources are compiled."""
    spec = importlib.util.spec_from_file_location("csrc_build", os.path.join("csrc", "build.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_cuda(folder: str, temporary: str) -> str | None:
    """Compiles the library for GPUs into ``folder``; None, or else the reason why it is not there."""
    cuda = csrc_build().cuda_builder()
    reason = cuda.why_not()
    if reason is None:
        try:
            cuda.build(folder, temporary)
        except cuda.BuildError as error:
            reason = f"the compilation failed: {error}"
            print(f"vitlite: installing without GPU operators: {reason}", file=sys.stderr)
    if reason is not None and os.path.exists(os.path.join(folder, cuda.LIBRARY)):
        os.remove(os.path.join(folder, cuda.LIBRARY))  # of an earlier build, with other sources
    return reason


def write_build_info(folder: str, reason: str | None, cuda_reason: str | None) -> None:
    if reason is not None and is_set("VITLITE_REQUIRE_EXT"):
        raise SystemExit(f"vitlite: VITLITE_REQUIRE_EXT is set, and there are no compiled operators: {reason}")
    if cuda_reason is not None and os.environ.get("VITLITE_CUDA") == "1" and is_set("VITLITE_REQUIRE_EXT"):
        raise SystemExit(f"vitlite: VITLITE_REQUIRE_EXT is set, and there are no GPU operators: {cuda_reason}")
    os.makedirs(folder, exist_ok=True)
    info = {"compiled": reason is None, "reason": reason}
    info["cuda"] = {"compiled": cuda_reason is None, "reason": cuda_reason}
    with open(os.path.join(folder, BUILD_INFO), "w") as file:
        json.dump(info, file)
    if reason is not None:
        print(f"vitlite: installing without compiled operators: {reason}", file=sys.stderr)


def optional_build_ext() -> type:
    """torch's build command, which lets the installation go on when a compilation fails, and keeps the reason."""

    class OptionalBuildExt(csrc_build().BuildLibrary):
        def run(self) -> None:
            reason, log, folder = None, _Log(), self.kernels_folder()
            try:
                with log:
                    super().run()
            except Exception as error:
                reason = f"the compilation failed: {log.first_error() or error}"
                # The commands that follow copy the extensions of this list, and there are none.
                self.extensions = self.distribution.ext_modules = []
            write_build_info(folder, reason, build_cuda(folder, os.path.join(self.build_temp, "cuda")))

        def kernels_folder(self) -> str:
            if self.inplace:
                return ROOMS["vitlite.kernels"]
            return os.path.join(self.build_lib, "vitlite", "kernels")

    return OptionalBuildExt


class _Log:
    """Keeps what the compiler prints, which goes past Python, and prints it when the block is left."""

    def __enter__(self) -> None:
        self.file = tempfile.TemporaryFile()
        self.saved = [os.dup(1), os.dup(2)]
        sys.stdout.flush()
        os.dup2(self.file.fileno(), 1)
        os.dup2(self.file.fileno(), 2)

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()
        for number, saved in zip((1, 2), self.saved):
            os.dup2(saved, number)
            os.close(saved)
        self.file.seek(0)
        self.text = self.file.read().decode(errors="replace")
        self.file.close()
        sys.stderr.write(self.text)

    def first_error(self) -> str | None:
        lines = [line.strip() for line in self.text.splitlines()]
        return next((line for line in lines if "error" in line.lower() or "not found" in line), None)


class PurePython(build_py):
    """Without extensions there is no build_ext; the reason is written here."""

    def run(self) -> None:
        super().run()
        folder = ROOMS["vitlite.kernels"] if self.editable_mode else os.path.join(self.build_lib, "vitlite", "kernels")
        write_build_info(folder, REASON, REASON)


class Wheel(bdist_wheel):
    """One name means one content: what holds no library is a wheel for every platform."""

    def run(self) -> None:
        if not self.skip_build:
            self.run_command("build")
            self.skip_build = True
        folder = os.path.join(self.get_finalized_command("build").build_lib, "vitlite", "kernels")
        if not any(glob(os.path.join(folder, f"_C*.{kind}")) for kind in ("so", "pyd")):
            self.root_is_pure, self.py_limited_api = True, False
        super().run()


REASON = why_no_extensions()
setup(
    packages=package_map(),
    package_dir={"vitlite": "vitlite", **ROOMS},
    ext_modules=[csrc_build().library("vitlite.kernels._C")] if REASON is None else [],
    cmdclass={
        "bdist_wheel": Wheel,
        **({"build_ext": optional_build_ext()} if REASON is None else {"build_py": PurePython}),
    },
    # Tags a wheel for every Python from 3.11 on.
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if REASON is None else {},
)
