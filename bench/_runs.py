"""What the benchmarks of whole methods share: which methods, their settings, short runs, and the speed of scoring."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vitlite.data import synthesize
from vitlite.engine.checkpoint import save_checkpoint
from vitlite.engine.detector import Detector
from vitlite.engine.predict import predict
from vitlite.engine.settings import RunSettings, apply_overrides, build_method, preset_config, save_settings
from vitlite.engine.train import train
from vitlite.files import make_folder
from vitlite.methods import REGISTRY, method_class

# Values of settings, for those that a method has, which make it cost little: then all around it is measured.
SMALL = {"image_size": 64, "feature_size": 8, "dim": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}


def method_names(text: str = "") -> list[str]:
    """Names with commas between them as a list; all methods if there is none. UserError: a name does not exist."""
    names = [name.strip() for name in text.split(",") if name.strip()] or list(REGISTRY)
    for name in names:
        method_class(name)
    return names


def synthetic(out: Path) -> Path:
    """The synthetic data set, made in ``out`` unless it is there."""
    return out / "synthetic" if (out / "synthetic").is_dir() else synthesize(out / "synthetic")


def settings_for(
    method: str, data: Path | str, category: str = "all", preset: str = "quick", overrides: Sequence[str] = ()
) -> RunSettings:
    config = apply_overrides(preset_config(method, preset), list(overrides))
    return RunSettings(method, str(data), category, preset, 0, config)


def small_settings(method: str, data: Path) -> RunSettings:
    known = vars(settings_for(method, data).config)
    return settings_for(method, data, overrides=[f"{k}={v}" for k, v in SMALL.items() if k in known])


def brief_run(settings: RunSettings, run: Path) -> Path:
    """Train for about one step, without pretrained weights: a run that scores as fast as any other."""
    overrides = ["steps=1", "folds=0", *(["weights=none"] if hasattr(settings.config, "weights") else [])]
    settings = RunSettings(**{**vars(settings), "config": apply_overrides(settings.config, overrides)})
    train(settings, run, device="cpu")
    return run


def untrained_run(settings: RunSettings, run: Path) -> Path:
    """Write a run directory that holds a method as it is before training, with random weights."""
    torch.manual_seed(settings.seed)
    method = build_method(settings, weights="none")
    save_settings(make_folder(run), settings)
    start = {"stage": 0, "epoch": 0, "optimizer": None, "rng": torch.get_rng_state(), "cuda_rng": None}
    save_checkpoint(run, {"method": settings.method, "model": method.state_dict(), "fingerprint": "", **start})
    return run


class Changed(Detector):
    """A detector of a run with other settings of its map: the same weights."""

    def __init__(self, run: Path, **changes: Any) -> None:
        self.changes = changes
        super().__init__(run)

    def _make_ready(self, state: dict[str, Any]) -> None:
        self.settings = replace(self.settings, config=replace(self.settings.config, **self.changes))
        super()._make_ready(state)


def scoring_rate(detector: Detector, paths: Sequence[str], *, overlays: bool) -> float:
    """Images per second of ``predict``, from image files to the files that it writes; the first few are a warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        predict(detector, paths[:8], Path(folder) / "warm", overlays=overlays)
        began = time.perf_counter()
        predict(detector, paths, Path(folder) / "out", overlays=overlays)
        return len(paths) / (time.perf_counter() - began)
