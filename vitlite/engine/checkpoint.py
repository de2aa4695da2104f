"""checkpoint.pt: everything that training needs to go on as if it had never stopped."""

import pickle
from pathlib import Path

import torch

from vitlite.errors import UserError
from vitlite.files import atomic

CHECKPOINT_FILE = "checkpoint.pt"
FORMAT = 1


def save_checkpoint(run, state):
    """Write atomically. ``state`` holds tensors, numbers, strings and containers of them only."""
    with atomic(Path(run) / CHECKPOINT_FILE, "wb") as file:
        torch.save({"format": FORMAT, **state}, file)


def load_checkpoint(run, method_name, device="cpu"):
    """Read with ``weights_only=True``: a file that would run code is refused. ``UserError`` says what is wrong."""
    path = Path(run) / CHECKPOINT_FILE
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: not there; training has not got as far as its first checkpoint") from None
    except pickle.UnpicklingError:
        raise UserError(f"{path}: holds objects other than weights and was not loaded; train again") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[:1]
        raise UserError(f"{path}: damaged or no checkpoint ({''.join(first)[:120]}); train again") from None
    if not isinstance(state, dict) or "model" not in state or "format" not in state:
        raise UserError(f"{path}: not a checkpoint of vitlite")
    if state["format"] > FORMAT:
        raise UserError(f"{path}: written by a newer vitlite; upgrade to read it")
    if state.get("method") != method_name:
        raise UserError(f"{path}: a checkpoint of method {state.get('method')}, but config.toml says {method_name}")
    return state


def restore_model(method, state, path):
    """Load weights into a method; a mismatch is one line."""
    try:
        method.load_state_dict(state["model"])
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise UserError(f"{path}: weights do not fit config.toml: {'; '.join(lines)[:300]}") from None
