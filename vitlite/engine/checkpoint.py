"""checkpoint.pt, everything that training needs to go on as if it had never stopped; and the log beside it.

A checkpoint is read with ``weights_only=True``: a file that would run code is refused.
"""

import contextlib
import hashlib
import json
import logging
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import nn

from vitlite.engine.settings import CONFIG_FILE, RunSettings, build_method, refuse_other_network
from vitlite.errors import UserError, first_line
from vitlite.files import StrPath, atomic, is_claimed, remove, write_text
from vitlite.good_scores import GOOD_SCORES_FILE
from vitlite.methods.base import Method
from vitlite.methods.meaning import of_scores

log = logging.getLogger(__name__)

CHECKPOINT_FILE, LOG_FILE, CALIBRATION_FILE = "checkpoint.pt", "log.jsonl", "calibration.json"
FAILED_FILE = "failed.txt"  # why training cannot go on: another may take the place of the run
FORMAT = 1
# What every checkpoint holds, besides "optimizer", "cuda_rng" and, since vitlite 0.2, "weights", which may be None.
CONTENTS = {"method": str, "model": dict, "stage": int, "epoch": int, "rng": torch.Tensor, "fingerprint": str}


class _Writer:
    """A file for ``torch.save``, which hides the reason of a failed write behind an error of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_checkpoint(run: StrPath, state: dict[str, Any]) -> None:
    """Write atomically. ``state`` holds tensors, numbers, strings and containers of them only.

    ``UserError`` if it cannot be written; the earlier checkpoint is then still there.
    """
    with atomic(Path(run) / CHECKPOINT_FILE, "wb") as file:
        writer = _Writer(file)
        try:
            torch.save({"format": FORMAT, **state}, cast(BinaryIO, writer))
        except RuntimeError:
            if writer.error is None:
                raise
            raise writer.error from None


def load_checkpoint(run: StrPath, method: str) -> dict[str, Any]:
    """The state that ``save_checkpoint`` wrote for a method of this name, on the CPU. ``UserError``: what is wrong."""
    path = Path(run) / CHECKPOINT_FILE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused anyway
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        stopped = "training stopped before its first checkpoint; resume it"
        raise UserError(f"{path}: not there; {why_unfinished(run) or stopped}") from None
    except Exception as error:  # damaged files make the reader raise nearly anything: KeyError, struct.error ...
        raise UserError(f"{path}: {reason(error)}; train again") from None
    if not isinstance(state, dict) or type(state.get("format")) is not int:
        raise UserError(f"{path}: not a checkpoint of vitlite")
    if state["format"] > FORMAT:
        raise UserError(f"{path}: written by a newer vitlite; upgrade to read it")
    wrong = [key for key, kind in CONTENTS.items() if not isinstance(state.get(key), kind)]
    if wrong:
        raise UserError(f"{path}: damaged, or no checkpoint of vitlite (no usable {', '.join(wrong)}); train again")
    if state["method"] != method:
        raise UserError(f"{path}: a checkpoint of method {state['method']}, but config.toml says {method}")
    return state


def scored_by(settings: RunSettings, model: Mapping[str, Any]) -> dict[str, Any]:
    """What the scores of a run depend on, for the files that hold such scores: settings, and a digest of the weights.

    ``model`` is the state of the method, as a checkpoint holds it.
    """
    whole = hashlib.sha256()
    for name in sorted(model):
        whole.update(name.encode())
        whole.update(model[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return {"settings": of_scores(settings.config), "weights": whole.hexdigest()}


def refuse_other_scores(kept: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> None:
    """``UserError`` if scores were made by other settings or weights than those that the run has now.

    ``kept`` is what the file at ``path`` says of its scores, and ``own`` what :func:`scored_by` gives for the run. A
    setting that is not in both, because another version wrote one, is not compared. Files of earlier versions do not
    say what made their scores: then ``kept`` is empty, and nothing is refused.
    """
    if not kept:
        return
    then, now = (dict(line.split("=", 1) for line in found["settings"]) for found in (kept, own))
    other = [name for name in then if now.get(name, then[name]) != then[name]]
    anew = f"set the thresholds anew with `vitlite calibrate {path.parent} --good DIR`"
    if other:
        was, has = (", ".join(f"{name}={found[name]}" for name in other) for found in (then, now))
        raise UserError(f"{path}: its scores were made with {was}, and {CONFIG_FILE} has {has}; restore it, or {anew}")
    if kept["weights"] != own["weights"]:
        raise UserError(
            f"{path}: its scores were made with other weights than those of {CHECKPOINT_FILE}; copy the whole run "
            f"again, or {anew}"
        )


def why_unfinished(run: StrPath) -> str:
    """What to say about a run that is being trained, or that failed; empty for any other."""
    if is_claimed(run):
        return "training is running there; wait for its end"
    path = Path(run) / FAILED_FILE
    return f"training failed ({path.read_text(encoding='utf-8').strip()}); train again" if path.is_file() else ""


def reason(error: Exception) -> str:
    """Why a file was not loaded, in a few words."""
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"(?:global: GLOBAL|unsupported GLOBAL|class) (\S+)", str(error))
        what = f"objects other than weights ({named[1]})" if named else "objects other than weights, or is damaged,"
        return f"holds {what} and was not loaded"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return f"damaged, or no checkpoint ({first_line(error, 120)})"


def restore_model(method: nn.Module, state: dict[str, Any], path: Path) -> None:
    """Load the weights of a checkpoint into a method. ``UserError`` if they do not fit."""
    try:
        method.load_state_dict(state["model"])
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise UserError(f"{path}: weights do not fit config.toml: {'; '.join(lines)[:300]}") from None
    except (TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged, or no checkpoint ({error}); train again") from None


def drop_log_after(path: Path, stage: int, epoch: int) -> None:
    """Remove the log's lines of epochs that will be trained again."""
    with contextlib.suppress(FileNotFoundError):
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                if (entry["stage_index"], entry["epoch"]) > (stage, epoch):
                    break
            except (ValueError, KeyError, TypeError):  # cut short by the interruption
                break
            kept.append(line + "\n")
        write_text(path, "".join(kept))


def with_weights(
    settings: RunSettings, run: Path, state: dict[str, Any] | None
) -> tuple[Method, str | None, str | None]:
    """The method with the weights that training begins with, or goes on with from a checkpoint's ``state``.

    Beside it, where they come from, in words, and where those of the frozen part came from at first; None if there are
    no weights to begin with.
    """
    if state is not None:
        # The checkpoint holds the backbone too, so a resumed run needs no weights from elsewhere.
        method = build_method(settings, weights="none")
        restore_model(method, state, run / CHECKPOINT_FILE)
        return method, "its checkpoint", state.get("weights")
    if not settings.init_from:
        method = build_method(settings)
        return method, method.weights_source, method.weights_source
    refuse_other_network(settings)
    state = load_checkpoint(settings.init_from, settings.method)
    method = build_method(settings, weights="none")
    # What the end of a training learns about places is learnt anew, and either run may be without it.
    places = {name: value for name, value in method.state_dict().items() if name.startswith("places.")}
    trained = {name: value for name, value in state["model"].items() if not name.startswith("places.")}
    restore_model(method, {"model": trained | places}, Path(settings.init_from) / CHECKPOINT_FILE)
    return method, settings.init_from, state.get("weights")


def is_free(run: Path) -> bool:
    """Whether a new run may begin in a folder: it holds none, or one that failed or that has no checkpoint."""
    return not ((run / CONFIG_FILE).exists() and (run / CHECKPOINT_FILE).exists()) or (run / FAILED_FILE).exists()


def refuse_present(run: Path) -> None:
    """``UserError`` if a new run would take the place of another."""
    if not is_free(run):
        raise UserError(f"{run}: already holds a run; use `resume=True` to go on with it, or choose another `out`")


def drop_failed(run: Path) -> None:
    """Remove what a training that failed, or that has no checkpoint, left where a new one begins."""
    refuse_present(run)
    if not (run / CONFIG_FILE).exists():
        return
    why = "that failed" if (run / FAILED_FILE).exists() else "that was stopped before its first checkpoint"
    log.warning("%s: replaces a run %s", run, why)
    for name in (CHECKPOINT_FILE, CALIBRATION_FILE, GOOD_SCORES_FILE, FAILED_FILE, LOG_FILE):
        remove(run / name)
