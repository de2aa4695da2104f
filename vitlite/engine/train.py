"""Training: from settings to a run directory with a trained, calibrated detector."""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitlite.data import Dataset, Sample, open_dataset
from vitlite.engine.calibrate import CALIBRATION_FILE, calibrate, in_words, load_calibration
from vitlite.engine.checkpoint import CHECKPOINT_FILE, load_checkpoint, restore_model, save_checkpoint
from vitlite.engine.distributed import ALONE, Team, autocast, join, keep_freed_memory
from vitlite.engine.features import FeatureCache, cache_features
from vitlite.engine.progress import Progress
from vitlite.engine.settings import (
    CONFIG_FILE,
    SYNTHETIC,
    RunSettings,
    build_method,
    data_folder,
    refuse_invalid_names,
    save_settings,
)
from vitlite.engine.split import fingerprint, split_good
from vitlite.errors import UserError
from vitlite.files import Claim, append_line, remove_leftovers, shown, write_text
from vitlite.methods.base import Method, Stage
from vitlite.methods.config import TrainingConfig
from vitlite.nn.batch_norm import set_counts

log = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"
SECONDS_BETWEEN_CHECKPOINTS = 30


def train(
    settings: RunSettings, run: str | os.PathLike[str], *, device: str = "auto", resume: bool = False
) -> dict[str, Any] | None:
    """Train into the folder ``run``; returns the calibration that it wrote.

    With ``resume`` the run goes on from its last checkpoint and reaches the weights that it would have had without the
    interruption. Under torchrun all processes train one model, and the first one writes and logs; the others return
    None. Raises ``UserError``, which names the folder, the file or the setting.
    """
    with join(device) as (team, place), Claim(run, "training") as claim:
        return _train(settings, Path(run), place, team, claim, resume)


def _train(
    settings: RunSettings, run: Path, device: torch.device, team: Team, claim: Claim, resume: bool
) -> dict[str, Any] | None:
    if team.leads and (resume or settings.data == SYNTHETIC):  # otherwise the folder is made after the data is found
        claim.take()
    refuse_present(run, resume)
    if not resume:
        refuse_data_folder(settings, run)
    keep_freed_memory()
    if team.leads:
        data_folder(settings, run)  # made once, before the others look for it
    team.wait()
    dataset = open_dataset(data_folder(settings, run), settings.category or None)
    settings = replace(settings, category=",".join(dataset.categories))
    refuse_invalid_names(settings)
    samples, held = split_good(dataset, settings.config, settings.seed)
    if not samples:
        raise UserError(f"{settings.data}: no good images to train on")

    torch.manual_seed(settings.seed)
    state = None
    if resume and (run / CHECKPOINT_FILE).exists():
        state = load_checkpoint(run, settings.method)
    # The checkpoint holds the backbone too, so a resumed run needs no weights from elsewhere.
    method = build_method(settings, weights="none" if state else None)
    if state is not None:
        restore_model(method, state, run / CHECKPOINT_FILE)
        if state["stage"] >= len(method.stages()) and (run / CALIBRATION_FILE).exists():
            log.info("%s: already trained to the end; nothing to do", run)
            return load_calibration(run)
    elif team.leads:
        claim.take()
        refuse_present(run, resume)
        save_settings(run, settings)
        drop_log_after(run / LOG_FILE, 0, 0)  # of an earlier start that was stopped before its first checkpoint
    if team.leads:
        remove_leftovers(run)
    team.wait()
    method.to(device)
    weights = method.weights_source if state is None else state.get("weights")
    log_start(method, weights, dataset, samples, held, device)

    paths = [sample.path for sample in samples]
    cache, indices = cache_features(method, paths, run, device)
    loop = Loop(method, settings, run, cache, len(indices), device, team)
    loop.weights = weights
    loop.fingerprint = fingerprint(dataset.root, [paths[i] for i in indices])
    if state is None:
        method.fit(loop.batches())
    else:
        loop.restore(state)
    loop.run_stages()
    if not team.leads:
        return None
    calibration = calibrate(method, settings, run, held or samples, device, held_out=bool(held))
    for line in in_words(calibration):
        log.log(logging.INFO if held else logging.WARNING, line)
    return calibration


def refuse_present(run: Path, resume: bool) -> None:
    """``UserError`` if a new run would take the place of another."""
    if not resume and (run / CONFIG_FILE).exists():
        raise UserError(f"{run}: already holds a run; use `resume=True` to go on with it, or choose another `out`")


def refuse_data_folder(settings: RunSettings, run: Path) -> None:
    """``UserError`` if a new run would be written among the images that it trains on, or above them."""
    if settings.data != SYNTHETIC and Path(os.path.realpath(settings.data)).is_relative_to(os.path.realpath(run)):
        raise UserError(f"`out={shown(run)}`: holds the data set {shown(settings.data)}; choose another folder")


def log_start(
    method: Method,
    weights: str | None,
    dataset: Dataset,
    samples: Sequence[Sample],
    held: Sequence[Sample],
    device: torch.device,
) -> None:
    """Log what is trained on what, in two lines."""
    categories = ", ".join(dataset.categories)
    log.info(
        "data: %d good images to train on, %d held out for the threshold (%s)", len(samples), len(held), categories
    )
    count = sum(p.numel() for p in method.parameters() if p.requires_grad)
    origin = f", weights from {weights}" if weights else ""
    if method.backbone_name:
        origin = f", features from {method.backbone_name} ({weights or 'of the checkpoint'})"
    log.info("model: %.2f M trained parameters%s, on %s", count / 1e6, origin, device)


class Loop:
    """The stages of a method over the cached features of ``count`` images, with checkpoints between epochs."""

    def __init__(
        self,
        method: Method,
        settings: RunSettings,
        run: Path,
        cache: FeatureCache,
        count: int,
        device: torch.device,
        team: Team = ALONE,
    ) -> None:
        self.team = team
        self.method, self.settings, self.config = method, settings, settings.config
        self.run, self.cache, self.count, self.device = run, cache, count, device
        self.loss = method.loss
        self.stage, self.epoch = 0, 0  # the next to be trained
        self.optimizer_state: dict[str, Any] | None = None
        self.fingerprint = ""  # of the training images
        self.weights: str | None = None  # where those of the frozen part come from
        self.saved_at = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        """Everything of a checkpoint but the model's weights. ``UserError`` if the training images have changed."""
        if state["fingerprint"] != self.fingerprint:
            raise UserError(
                f"{self.settings.data}: not the training images that this run began with; "
                "restore them, or train into another `out`"
            )
        self.stage, self.epoch, self.optimizer_state = state["stage"], state["epoch"], state["optimizer"]
        torch.set_rng_state(state["rng"].cpu())
        if self.device.type == "cuda" and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        if self.team.leads:
            drop_log_after(self.run / LOG_FILE, self.stage, self.epoch)
        log.info("resumed after epoch %d of stage %d", self.epoch, self.stage + 1)

    def save(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Write a checkpoint; without an optimiser between two stages."""
        if not self.team.leads:
            return
        cuda = self.device.type == "cuda"
        save_checkpoint(
            self.run,
            {
                "method": self.settings.method,
                "model": self.method.state_dict(),
                "optimizer": optimizer.state_dict() if optimizer is not None else None,
                "stage": self.stage,
                "epoch": self.epoch,
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
                "fingerprint": self.fingerprint,
                "weights": self.weights,
            },
        )
        self.saved_at = time.monotonic()
        log.debug("checkpoint written; next is epoch %d of stage %d", self.epoch + 1, self.stage + 1)

    def run_stages(self) -> None:
        """Train what is left of all stages."""
        stages = plan_stages(self.method.stages(), self.config, self.count)
        while self.stage < len(stages):
            self.run_stage(stages[self.stage])
            self.stage, self.epoch, self.optimizer_state = self.stage + 1, 0, None
            if self.stage == len(stages):
                self.method.eval()
                with torch.no_grad():
                    self.method.finish(self.batches())
            self.save(None)

    def batches(self, size: int = 64) -> Iterator[Tensor]:
        """The frozen outputs of all training images, in order."""
        for first in range(0, self.count, size):
            yield self.cache[first : min(first + size, self.count)].to(self.device)

    def run_stage(self, stage: Stage) -> None:
        """Train what is left of one stage."""
        steps = stage.steps_per_epoch(self.count, self.config)
        self.method.begin(stage)
        self.loss = torch.compile(self.method.loss) if self.config.compile else self.method.loss
        optimizer = make_optimizer(self.method, stage, self.config)
        if self.optimizer_state is not None:
            optimizer.load_state_dict(self.optimizer_state)
        with Progress(stage.name, stage.epochs * self.count, start=self.epoch * self.count) as progress:
            while self.epoch < stage.epochs:
                self.run_epoch(stage, optimizer, steps, progress)
                self.epoch += 1
                if self.epoch < stage.epochs and time.monotonic() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                    self.save(optimizer)

    def run_epoch(self, stage: Stage, optimizer: torch.optim.Optimizer, steps: int, progress: Progress) -> None:
        """One pass over the training set in an order that depends on seed, stage and epoch alone."""
        self.method.train()
        generator = torch.Generator().manual_seed(self.seed_of(self.epoch))
        order = torch.randperm(self.count, generator=generator)
        sums: dict[str, float] = {}
        began = time.monotonic()
        for step, indices in enumerate(order.split(stage.batch_size or self.config.batch_size)):
            peak = stage.lr or self.config.lr
            rate = peak * learning_rate(self.config, self.epoch * steps + step, steps, stage.epochs * steps)
            if self.team.size > 1 and not self.method.draws_for_batch:
                # Other numbers in every process, that depend on nothing before: parts of a batch differ in length.
                torch.manual_seed(self.seed_of(self.epoch, step, self.team.rank))
            terms = self.train_step(optimizer, indices, rate)
            if not math.isfinite(terms["loss"]):
                setting = stage.lr_option
                fix = f"train again with a smaller `{setting}` than {getattr(self.config, setting)}"
                raise UserError(f"the loss became {terms['loss']}; {fix}")
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value * len(indices) / self.count
            progress.step(len(indices), f"epoch {self.epoch + 1}/{stage.epochs}  loss {terms['loss']:.4g}")
        speed = self.count / (time.monotonic() - began)
        line = {"stage": stage.name, "stage_index": self.stage, "epoch": self.epoch + 1, **sums, "lr": rate}
        if self.team.leads:
            append_line(self.run / LOG_FILE, json.dumps({**line, "images_per_second": round(speed, 2)}))

    def seed_of(self, *place: int) -> int:
        """The seed for a place in training: from seed, stage and the numbers given (epochs, steps and ranks)."""
        seed = self.settings.seed * 1009 + self.stage
        for number in place:
            seed = seed * 1_000_003 + number
        return seed % 2**63

    def train_step(self, optimizer: torch.optim.Optimizer, indices: Tensor, rate: float) -> dict[str, float]:
        """One optimiser step; returns the loss terms."""
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        values: dict[str, float] = {}
        for batch in indices.chunk(self.config.accumulate):
            part, count = self.team.part(batch)
            share = count / len(indices)
            for name, value in self.add_gradients(part, share).items():
                values[name] = values.get(name, 0.0) + share * value
        trained = [p for g in optimizer.param_groups for p in g["params"]]
        values = self.team.add_up(trained, values)
        if self.config.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(trained, self.config.clip_norm)
        optimizer.step()
        return values

    def add_gradients(self, indices: Tensor, share: float) -> dict[str, float]:
        """Backward pass of ``share`` times the loss of some images; returns the loss terms."""
        features = self.cache[indices].to(self.device, non_blocking=True)
        if self.team.size > 1:
            set_counts(self.method, share > 0)
        with autocast(self.config.precision, self.device):
            terms = self.loss(features)
        (terms["loss"] if share == 1 else terms["loss"] * share).backward()
        return {name: float(term.detach()) for name, term in terms.items()}


def plan_stages(stages: Sequence[Stage], config: TrainingConfig, images: int) -> list[Stage]:
    """The stages with the epochs that they get: their own, or their part of ``config.steps``."""
    if not config.steps:
        return list(stages)
    whole = sum(stage.epochs for stage in stages)
    steps = [config.steps * stage.epochs / whole for stage in stages]
    return [
        replace(stage, epochs=max(1, round(n / stage.steps_per_epoch(images, config))))
        for stage, n in zip(stages, steps)
    ]


def make_optimizer(method: Method, stage: Stage, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser over the parameters that a stage trains; weight decay on weight matrices only."""
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in method.named_parameters():
        if parameter.requires_grad and name.startswith(tuple(stage.trains)):
            matrix = parameter.ndim > 1 and name.endswith("weight")
            (decayed if matrix else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
    return kind(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(config: TrainingConfig, step: int, steps_per_epoch: int, total: int) -> float:
    """Share of the peak rate: linear warm-up from 0, then constant or a half cosine to 0; ``step`` counts from 0."""
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


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
