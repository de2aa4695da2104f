"""Compiles ``_C_cuda`` from this folder: nvcc for the kernels, the C++ compiler for what knows torch.

Used by setup.py and by the tests. torch's own CUDA extension is not: it refuses a torch without CUDA, with which the
kernels compile and link all the same. What they take from torch is its stable C interface; the part of
it that only a CUDA build of torch has is found when the library is loaded there.
"""

import os
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = "_C_cuda.abi3.so"
# Data centre cards of the last three generations; later ones compile the PTX of the newest when they load it.
ARCHITECTURES = ("80", "90", "100")
# Only what is written fused is fused: equal images are then exactly equal, and results those of the CPU.
NVCC_FLAGS = ("-std=c++20", "-O3", "-fmad=false", "-Xptxas", "-v", "-Xcompiler", "-fPIC,-fvisibility=hidden")
CXX_FLAGS = ("-std=c++20", "-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off")
TARGET_TORCH = "0x020a000000000000"


class BuildError(Exception):
    """A command failed; the message is its first line that says why."""


def find_nvcc() -> str | None:
    """Path of nvcc, or None."""
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")] + ["/usr/local/cuda"]
    known = [Path(home) / "bin" / "nvcc" for home in homes if home]
    found = next((path for path in known[:-1] if path.exists()), None) or shutil.which("nvcc")
    return str(found) if found else next((str(path) for path in known if path.exists()), None)


def why_not() -> str | None:
    """None if the library is to be compiled here, or else the reason in one line.

    Only ``VITLITE_CUDA=1`` asks for it: it is large, and takes minutes. A torch without CUDA will do.
    """
    if os.environ.get("VITLITE_CUDA") != "1":
        return "VITLITE_CUDA=1 was not set when vitlite was installed"
    if os.name == "nt":
        return "the CUDA library is built on Linux only"
    if find_nvcc() is None:
        return "nvcc was not found when vitlite was installed"
    return None


def architectures(nvcc: str) -> tuple[str, ...]:
    """Those of ``ARCHITECTURES`` that this nvcc knows, or those named by ``VITLITE_CUDA_ARCH`` such as "90,100"."""
    wish = os.environ.get("VITLITE_CUDA_ARCH", "")
    if wish:
        return tuple(wish.replace(" ", "").split(","))
    known = _run([nvcc, "--list-gpu-code"]).split()
    return tuple(arch for arch in ARCHITECTURES if f"sm_{arch}" in known)


def code_flags(architectures: tuple[str, ...]) -> list[str]:
    """Machine code for each architecture, and PTX of the newest."""
    newest = max(architectures, key=lambda arch: int(re.match(r"\d+", arch).group()))
    flags = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in architectures]
    return [*flags, f"-gencode=arch=compute_{newest},code=compute_{newest}"]


def build(folder: str | Path, temporary: str | Path) -> Path:
    """Compiles and links the library, ``MAX_JOBS`` commands at a time, or one for each processor.

    Args:
        folder: where ``_C_cuda.abi3.so`` is written.
        temporary: for object files, which are used again while nothing changes, and for ``ptxas.txt``, the registers,
            shared memory and spills of every kernel.

    Returns:
        The path of the library.

    Raises:
        BuildError: a command failed.
    """
    from torch.utils.cpp_extension import include_paths, library_paths

    temporary = Path(temporary)
    temporary.mkdir(parents=True, exist_ok=True)
    nvcc = find_nvcc()
    cxx = shlex.split(os.environ.get("CXX", "c++"))
    includes = [f"-I{path}" for path in include_paths()]
    codes = code_flags(architectures(nvcc))
    commands = {}
    for source in sorted(HERE.glob("*.cu")):
        commands[source] = [nvcc, *NVCC_FLAGS, *codes, "-c", str(source)]
    for source in sorted(HERE.glob("*.cpp")):
        commands[source] = [*cxx, *CXX_FLAGS, f"-DTORCH_TARGET_VERSION={TARGET_TORCH}", *includes, "-c", str(source)]
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", 0)) or os.cpu_count()) as pool:
        logs = list(pool.map(lambda item: _compile(*item, temporary), commands.items()))
    (temporary / "ptxas.txt").write_text("".join(logs))
    target = Path(folder) / LIBRARY
    target.parent.mkdir(parents=True, exist_ok=True)
    objects = [str(_object(source, temporary)) for source in commands]
    # nvcc links its own runtime in. torch.so is needed for what it brings: all of torch that is installed where the
    # library is loaded, also the CUDA half.
    link = [nvcc, "-shared", "-nodlink", "-cudart", "static", *objects, *(f"-L{path}" for path in library_paths())]
    link += ["-Xlinker", "--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10", "-o", str(target)]
    _run(link)
    return target


def _object(source: Path, temporary: Path) -> Path:
    return temporary / f"{source.name}.o"


def _compile(source: Path, command: list[str], temporary: Path) -> str:
    """Compiles one file unless nothing changed since the last time; returns what the compiler printed then."""
    target, log, said = (temporary / f"{source.name}{end}" for end in (".o", ".log", ".cmd"))
    inputs = [source, *HERE.glob("*.h"), *HERE.parent.glob("c*/*.h")]
    if target.exists() and said.exists() and said.read_text() == shlex.join(command):
        if target.stat().st_mtime > max(path.stat().st_mtime for path in inputs):
            return log.read_text()
        target.unlink()
    text = _run([*command, "-o", str(target)])
    log.write_text(text)
    said.write_text(shlex.join(command))
    return text


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]} could not be run: {error.strerror}") from None
    text = done.stdout + done.stderr
    if done.returncode != 0:
        lines = [line.strip() for line in text.splitlines()]
        why = next((line for line in lines if "error" in line.lower() or "undefined" in line), None)
        raise BuildError(why or f"{Path(command[0]).name} ended with code {done.returncode}: {' '.join(lines)[:300]}")
    return text


def report(text: str) -> list[dict]:
    """The kernels of a ``ptxas.txt``.

    Returns:
        List of dicts with ``kernel`` (mangled name), ``arch``, ``registers``, ``stack``, ``spill_stores`` and
        ``spill_loads`` (bytes).
    """
    kernels = []
    for line in text.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)' for 'sm_(\w+)'", line):
            kernels.append({"kernel": found[1], "arch": found[2]})
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            if kernels:
                kernels[-1].update(stack=int(found[1]), spill_stores=int(found[2]), spill_loads=int(found[3]))
        elif (found := re.search(r"Used (\d+) registers", line)) and kernels:
            kernels[-1]["registers"] = int(found[1])
    return kernels
