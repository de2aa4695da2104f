"""checkpoint.pt: everything that training needs to go on as if it had never stopped."""

import os
import pickle
import re
import warnings
from pathlib import Path

import torch

from vitlite.errors import UserError
from vitlite.files import atomic, make_folder

CHECKPOINT_FILE = "checkpoint.pt"
FORMAT = 1
# What every checkpoint holds, besides "optimizer" and "cuda_rng", which may be None.
CONTENTS = {"method": str, "model": dict, "stage": int, "epoch": int, "rng": torch.Tensor, "fingerprint": str}


class _Writer:
    """A file for ``torch.save``, which hides why a write failed behind an error of its own."""

    def __init__(self, file):
        self.file, self.error = file, None

    def write(self, data):
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self):
        self.file.flush()


def save_checkpoint(run, state):
    """Write atomically. ``state`` holds tensors, numbers, strings and containers of them only.

    ``UserError`` where it cannot be written; the checkpoint before it is then still there.
    """
    with atomic(Path(run) / CHECKPOINT_FILE, "wb") as file:
        writer = _Writer(file)
        try:
            torch.save({"format": FORMAT, **state}, writer)
        except RuntimeError:
            if writer.error is None:
                raise
            raise writer.error from None


def load_checkpoint(run, method_name, device="cpu"):
    """Read with ``weights_only=True``: a file that would run code is refused. ``UserError`` says what is wrong."""
    path = Path(run) / CHECKPOINT_FILE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused anyway
            state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: not there; training has not got as far as its first checkpoint") from None
    except Exception as error:  # damaged files make the reader raise nearly anything: KeyError, struct.error ...
        raise UserError(f"{path}: {reason(error)}; train again") from None
    if not isinstance(state, dict) or type(state.get("format")) is not int:
        raise UserError(f"{path}: not a checkpoint of vitlite")
    if state["format"] > FORMAT:
        raise UserError(f"{path}: written by a newer vitlite; upgrade to read it")
    wrong = [key for key, kind in CONTENTS.items() if not isinstance(state.get(key), kind)]
    if wrong:
        raise UserError(f"{path}: damaged, or no checkpoint of vitlite (no usable {', '.join(wrong)}); train again")
    if state.get("method") != method_name:
        raise UserError(f"{path}: a checkpoint of method {state.get('method')}, but config.toml says {method_name}")
    return state


def reason(error):
    """Why a file was not loaded, in a few words."""
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"(?:global: GLOBAL|unsupported GLOBAL|class) (\S+)", str(error))
        what = f"objects other than weights ({named[1]})" if named else "objects other than weights, or is damaged,"
        return f"holds {what} and was not loaded"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    first = "".join(str(error).strip().splitlines()[:1])
    return f"damaged, or no checkpoint ({first[:120] or type(error).__name__})"


def restore_model(method, state, path):
    """Load weights into a method; a mismatch is one line."""
    try:
        method.load_state_dict(state["model"])
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise UserError(f"{path}: weights do not fit config.toml: {'; '.join(lines)[:300]}") from None
    except (TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged, or no checkpoint ({error}); train again") from None


try:
    import fcntl
except ImportError:  # not a Unix: nothing notices the other process there
    fcntl = None


class Claim:
    """A context manager; from ``take`` to its end the folder is this process's to train in.

    The system drops the claim with the process, however that ends, and nothing of it is left in the folder.
    """

    def __init__(self, run):
        self.run, self.handle = run, None

    def take(self):
        """Make the folder and claim it, once. ``UserError`` where another process has it or it cannot be made."""
        make_folder(self.run)
        if self.handle is not None or fcntl is None:
            return
        try:
            self.handle = os.open(self.run, os.O_RDONLY)
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.run}: another process is training there; wait for its end, or choose another --out"
            ) from None
        except OSError:  # a file system without locks, or a folder that cannot be read: nobody is refused there
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None
