"""Make the weights that the transformer of ``sivt --preset quick`` begins with: taught on random products.

No real image is used. Each batch holds images of one random product (``_programs.py``), whose features are standardised
as those of a real part are. The loss, the optimiser and the rate are those of the preset. The weights are an average
over the last steps. A stopped call goes on from its work folder.

Example: vitlite bench start --out vitlite/methods/starts/efficientnet_lite2.pt --programs 128 --steps 2000
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitlite.engine.distributed import autocast
from vitlite.engine.features import to_images
from vitlite.engine.settings import RunSettings, build_method, preset_config
from vitlite.files import atomic, new_file
from vitlite.methods.base import Stage
from vitlite.methods.config import change
from vitlite.methods.schedule import average_weights, learning_rate, make_optimizer, use_average
from vitlite.methods.sivt import SIVT, Config
from vitlite.methods.start import save_start

from ._machine import described, machine, parser_of
from ._programs import Program

AVERAGED = 0.999  # decay a step
WARMUP = 30  # steps
LOGGED, SAVED = 50, 200  # steps
ALONE = 600  # steps with subsets of single tokens; then half of the steps have squares of two by two


def main(args: Sequence[str] | None = None) -> int:
    parser = parser_of("start", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="the file of weights to write")
    parser.add_argument("--work", type=Path, default=Path("start-work"), help="folder for features and checkpoints")
    parser.add_argument("--programs", type=int, default=256, help="random products")
    parser.add_argument("--images", type=int, default=16, help="images of each")
    parser.add_argument("--steps", type=int, default=6000, help="optimiser steps")
    parser.add_argument("--processes", type=int, default=1, help="that paint images")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of sivt")
    options = parser.parse_args(args)
    new_file(options.out)
    print(described(machine()), flush=True)
    changes = dict(pair.split("=", 1) for pair in options.set)
    config = change(preset_config("sivt", "quick"), {"start": "none"} | changes)
    assert isinstance(config, Config)
    method = new_method(replace(config, average=AVERAGED, warmup_steps=WARMUP))
    options.work.mkdir(parents=True, exist_ok=True)
    features = cached(method, options.work, options.programs, options.images, options.processes)
    teach(method, features, options.steps, options.work / "state.pt")
    made = {key: getattr(options, key) for key in ("programs", "images", "steps")}
    with atomic(options.out, "wb") as file:
        save_start(file, method.transformer, method.config, made)
    print(f"{options.out}: written")
    return 0


def new_method(config: Config) -> SIVT:
    """A network of the settings, with weights of seed 0."""
    torch.manual_seed(0)
    method = build_method(RunSettings("sivt", "", "", "quick", 0, config))
    assert isinstance(method, SIVT)
    return method


def paint(place: tuple[int, int, int]) -> np.ndarray:
    """The images (N, S, S, 3) of a program: its seed, their number and their size."""
    seed, count, size = place
    program = Program(seed)
    return np.stack([program.image(number, size) for number in range(count)])


@torch.no_grad()
def cached(method: SIVT, work: Path, programs: int, images: int, processes: int) -> np.ndarray:
    """The features (programs, images, C, H, W) of all images, float16 in a file that a later call goes on with."""
    size, _ = method.config.image_shape
    shape = (programs, images, sum(method.backbone.channels), *method.config.grid)
    path, count = work / "features.f16", work / "programs.txt"
    done = int(count.read_text()) if count.exists() and path.exists() else 0
    features = np.memmap(path, np.float16, "r+" if path.exists() else "w+", shape=shape)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        painted = pool.map(paint, [(seed, images, size) for seed in range(done, programs)])
        for seed, pixels in enumerate(painted, done):
            features[seed] = method.frozen(to_images(pixels, torch.device("cpu"))).half().numpy()
            count.write_text(str(seed + 1))
            if seed % 16 == 15:
                print(f"program {seed + 1}/{programs}", flush=True)
    return features


def standardisations(method: SIVT, features: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Mean and deviation of the channels of each program."""
    for program in features:
        method.fit(iter([torch.from_numpy(np.array(program)).float()]))
        yield method.feature_mean.clone(), method.feature_std.clone()


def teach(method: SIVT, features: np.ndarray, steps: int, state: Path) -> None:
    """Train the transformer; it has the averaged weights at the end."""
    config, optimizer = method.config, make_optimizer(method, Stage("start", 1, trains=("transformer",)), method.config)
    scales, first = list(standardisations(method, features)), 0
    if state.exists():
        saved: dict[str, Any] = torch.load(state, weights_only=True)
        first = saved["step"]
        method.transformer.load_state_dict(saved["weights"])
        optimizer.load_state_dict(saved["optimizer"])
    parameters, total = list(method.transformer.parameters()), 0.0
    method.train()
    for step in range(first, steps):
        rng = np.random.default_rng(step)
        torch.manual_seed(step)
        program = int(rng.integers(len(features)))
        method.feature_mean.copy_(scales[program][0])
        method.feature_std.copy_(scales[program][1])
        method.block = 1 if step < ALONE else int(rng.integers(1, 3))
        chosen = np.sort(rng.choice(features.shape[1], min(config.batch_size, features.shape[1]), replace=False))
        batch = torch.from_numpy(np.array(features[program, chosen])).float()
        for group in optimizer.param_groups:
            group["lr"] = config.lr * learning_rate(config, step, 1, steps)
        optimizer.zero_grad(set_to_none=True)
        with autocast(config.precision, torch.device("cpu")):
            loss = method.loss(batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimizer.step()
        average_weights(optimizer, config.average, step)
        total += float(loss.detach())
        if (step + 1) % LOGGED == 0:
            print(f"step {step + 1}/{steps}: loss {total / LOGGED:.1f}", flush=True)
            total = 0.0
        if (step + 1) % SAVED == 0 or step + 1 == steps:
            weights = method.transformer.state_dict()
            with atomic(state, "wb") as file:
                torch.save({"step": step + 1, "weights": weights, "optimizer": optimizer.state_dict()}, file)
    use_average(optimizer)
