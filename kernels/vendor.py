"""``python -m vitlite.kernels.vendor DIR --namespace NAME``: the operators as a folder of another library.

The copy lists its operators with torch under a name of its own, so it and an installed vitlite, or another copy, serve
one process and know nothing of each other.
"""

import argparse
import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
# What is written for the one process or place that it is in.
LEFT_OUT = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "_build_info.json", "vendor.py")
# The two lines that hold the name.
NAMES = {"_extension.py": 'NAMESPACE = "{}"', "csrc/common/library.h": "#define VITLITE_NAMESPACE {}"}


class VendorError(Exception):
    """One line that says what is wrong."""


def vendor(folder: Path, namespace: str) -> None:
    """Write the operators and their C++ sources into a new or empty folder, under another name.

    Args:
        folder: becomes a Python package; its parents are made.
        namespace: a name that no operators have in this process.

    Raises:
        VendorError: the name or the folder will not do, or the sources are not there.
    """
    check_name(namespace)
    sources = HERE.parent / "csrc"
    if not sources.is_dir():
        raise VendorError(f"{sources}: not there; call this from a clone, which has the C++ sources beside kernels/")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise VendorError(f"{folder}: must be a new or an empty folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            made = Path(temporary) / folder.name
            shutil.copytree(HERE, made, ignore=LEFT_OUT)
            shutil.copytree(sources, made / "csrc", ignore=LEFT_OUT)
            shutil.copy(HERE.parent / "LICENSE", made)
            for name, line in NAMES.items():
                replace_line(made / name, line.format("vitlite"), line.format(namespace))
            made.replace(folder)
    except OSError as error:
        raise VendorError(f"{folder}: cannot be written ({error.strerror})") from error


def check_name(namespace: str) -> None:
    """``VendorError`` for a name that is none in Python and C++, or that other operators have."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", namespace) or keyword.iskeyword(namespace):
        raise VendorError(f"--namespace {namespace}: must be a name of ASCII letters, digits and underscores")
    taken = {op.partition("::")[0] for op in torch._C._dispatch_get_all_op_names()}
    if namespace in taken:
        raise VendorError(f"--namespace {namespace}: torch has operators of that name already; take another")


def replace_line(file: Path, old: str, new: str) -> None:
    """Replace what stands in a file once."""
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, file
    file.write_text(text.replace(old, new), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m vitlite.kernels.vendor", description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path, help="new or empty folder, such as mylib/operators")
    parser.add_argument("--namespace", required=True, help="name of the operators in torch.ops, such as mylib")
    options = parser.parse_args(arguments)
    try:
        vendor(options.dir, options.namespace)
    except VendorError as error:
        print(f"vendor: {error}", file=sys.stderr)
        return 2
    print(f"{options.dir}: written; python {options.dir / 'csrc' / 'build.py'} compiles it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
