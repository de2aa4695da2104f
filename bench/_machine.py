"""What all benchmarks share: what numbers depend on, tables that name it, and processes of their own."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import vitlite
from vitlite import files


def machine(device: str = "cpu", packages: tuple[str, ...] = ("torch",)) -> dict[str, str]:
    """Date, processor or GPU, threads, and versions of Python, vitlite, its commit, and these packages, if installed.

    torch is asked for its threads, and the compiled operators for their instruction set, only if torch is loaded.
    """
    about = {"date": datetime.date.today().isoformat(), "processor": _processor()}
    torch = sys.modules.get("torch")
    if torch is not None:
        about |= {"threads": str(torch.get_num_threads()), "kernels": _kernels()}
        if device.startswith("cuda"):
            about |= {"gpu": torch.cuda.get_device_name(), "driver": _driver(), "cuda": str(torch.version.cuda)}
    about |= {"python": platform.python_version(), "vitlite": vitlite.__version__, "commit": commit()}
    for package in packages:
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            continue
    return about


def parser_of(benchmark: str, about: str | None) -> argparse.ArgumentParser:
    """What takes a benchmark's options; the first line of the text of its module says what it measures."""
    return argparse.ArgumentParser(prog=f"vitlite bench {benchmark}", description=(about or "").partition("\n")[0])


def described(about: dict[str, str]) -> str:
    """One line of the facts that ``machine`` gives."""
    return ", ".join(f"{key} {value}" for key, value in about.items() if value)


def write_csv(path: Path | str, columns: Sequence[str], rows: Iterable[dict[str, Any]], about: dict[str, str]) -> None:
    """The rows as CSV, each with the machine and the versions; what was not measured is empty."""
    heads = [*columns, *about]
    files.write_csv(path, heads, ([{**about, **row}.get(head) for head in heads] for row in rows))


def in_a_process(benchmark: str, *args: object, **environment: str) -> Any:
    """The last line that a benchmark prints, read as JSON, from a process of its own."""
    command = [sys.executable, "-m", "vitlite.bench", benchmark, *map(str, args)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def judged(met: bool) -> str:
    return "met" if met else "NOT MET"


def commit() -> str:
    """The commit of the checkout that vitlite runs from, with "+" if files were changed; empty if it is installed."""
    folder = Path(vitlite.__file__).parent.parent
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=9"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip()


def forget_peak() -> None:
    """Let :func:`peak_mib` begin anew, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> int | None:
    """The most memory that this process has had, in MiB, since :func:`forget_peak`; None if the system does not say."""
    most = held("VmHWM")
    return None if most is None else most >> 20


def held(field: str) -> int | None:
    """Bytes of memory of this process: VmRSS, now, or VmHWM, at most so far; None if the system does not say."""
    try:  # getrusage would count the parent's as well
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def _processor() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {cores} cores"


def _kernels() -> str:
    from ..kernels import _extension

    return _extension.instruction_set() or "not compiled"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"
