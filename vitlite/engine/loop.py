"""The training loop: the stages of a method over cached features, with checkpoints between epochs."""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from vitlite.data import Sample
from vitlite.engine.checkpoint import (
    CALIBRATION_FILE,
    FAILED_FILE,
    LOG_FILE,
    drop_log_after,
    save_checkpoint,
    with_weights,
)
from vitlite.engine.distributed import ALONE, Team, autocast
from vitlite.engine.features import AT_ONCE, FeatureCache, Part
from vitlite.engine.settings import RunSettings, save_settings
from vitlite.engine.split import Split
from vitlite.engine.unseen import DrawnTest, Measured, draw_sources
from vitlite.errors import UserError
from vitlite.files import append_line, remove, write_text
from vitlite.good_scores import GOOD_SCORES_FILE
from vitlite.images.scale import Reading
from vitlite.methods.base import Method, Stage
from vitlite.methods.config import TrainingConfig
from vitlite.methods.schedule import (
    average_weights,
    continued,
    learning_rate,
    make_optimizer,
    plan_stages,
    planned,
    same_steps,
    use_average,
)
from vitlite.nn.batch_norm import set_counts
from vitlite.progress import Progress

log = logging.getLogger(__name__)

SECONDS_BETWEEN_CHECKPOINTS = 30
FOLDS_FILE = "folds.pt"  # what cross-fitting has measured, until training is finished
TESTS, LEAST_STEPS = 10, 40  # a stage is tested so often, but never after fewer steps: each takes as long as one step
LEAST_RISE = 0.01  # with ``patience``: training goes on while a test finds drawn defects better by so much
EXPORTED = ("model.onnx", "model.pt2", "model.xml", "model.bin", "model-int8.xml", "model-int8.bin")
MADE_OF_WEIGHTS = ("results.json", "report.html", *EXPORTED)  # of a run, by other commands


class Loop:
    """The stages of a method over the cached features of its images, with checkpoints between epochs.

    A ``fold`` (such as "fold 1/4") trains one of the further networks: it writes no checkpoint and no log, and takes as
    many steps as a training on ``planned_for`` images. ``after`` networks train after it, as long. ``test`` says how
    well images are told apart that the network does not train on: progress and the log show its figure. A loop that
    ``decides`` ends by itself, if the settings have a ``patience``; ``ended`` then has the steps that it made.
    """

    def __init__(
        self,
        method: Method,
        settings: RunSettings,
        run: Path,
        features: Part,
        device: torch.device,
        team: Team = ALONE,
        *,
        fold: str = "",
        planned_for: int = 0,
        after: int = 0,
        test: DrawnTest | None = None,
        decides: bool = False,
    ) -> None:
        self.team, self.fold, self.after, self.test = team, fold, after, test
        self.figures: list[float] = []  # what ``test`` gave in this stage
        self.decides, self.ended = decides and bool(settings.config.patience), 0
        self.method, self.settings, self.config = method, settings, settings.config
        self.run, self.features, self.count, self.device = run, features, len(features), device
        self.planned_for = planned_for or self.count
        features.keep_on(device)
        self.loss = method.loss
        self.stage, self.epoch = 0, 0  # the next to be trained
        self.optimizer_state: dict[str, Any] | None = None
        self.fingerprint = ""  # of the training images
        self.weights: str | None = None  # where those of the frozen part come from
        self.finished_before = False  # whether more epochs are added to a run that was finished
        self.saved_at = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        """Everything of a checkpoint but the model's weights. ``UserError`` if the training images have changed."""
        if state["fingerprint"] != self.fingerprint:
            raise UserError(
                f"{self.settings.data}: not the training images that this run began with; "
                "restore them, or train into another `out`"
            )
        self.stage, self.epoch, self.optimizer_state = state["stage"], state["epoch"], state["optimizer"]
        self.figures = state.get("figures", [])
        torch.set_rng_state(state["rng"].cpu())
        if self.device.type == "cuda" and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        if self.team.leads:
            drop_log_after(self.run / LOG_FILE, self.stage, self.epoch)
        if self.stage < len(self.method.stages()):
            log.info("resumed after epoch %d of stage %d", self.epoch, self.stage + 1)

    def change(self, before: RunSettings) -> None:
        """Record what has changed since a run was begun: the number of epochs, or the place of its data.

        A finished run goes on with the last stage that has become longer. ``UserError`` if there is nothing to go on
        with.
        """
        if self.config != before.config:
            self.lengthen(before.config)
        if self.team.leads and self.settings != before:
            save_settings(self.run, self.settings)

    def lengthen(self, before: TrainingConfig) -> None:
        """Make ready to train with other numbers of epochs than ``before``, while config.toml still has those."""
        old, new = ([stage.epochs for stage in planned(self.method, one, self.count)] for one in (before, self.config))
        if not new:
            raise UserError(f"`method={self.settings.method}`: has no epochs to train; begin anew with other settings")
        place = continued(old, new, self.stage, self.epoch)
        if place is None:
            key = "steps" if self.config.steps else "epochs"
            had = [*old[: self.stage], self.epoch][: len(old)]
            shown_new, shown_had = (" + ".join(map(str, epochs)) for epochs in (new, had))
            value, noun = getattr(self.config, key), "epoch" if shown_new == "1" else "epochs"
            raise UserError(f"`{key}={value}`: makes {shown_new} {noun}; the run has had {shown_had}; give more")
        if self.team.leads:
            remove(self.run / CALIBRATION_FILE)  # it is of the weights that change now
            remove(self.run / GOOD_SCORES_FILE)
            for path in filter(os.path.exists, (self.run / name for name in MADE_OF_WEIGHTS)):
                log.warning("%s: is of the weights before; make it anew after training", path)
        if self.stage == len(new):
            self.finished_before = True
            self.stage, self.epoch, self.figures = *place, []
            self.save(None)
            if self.team.leads:
                drop_log_after(self.run / LOG_FILE, self.stage, self.epoch)
        log.info("goes on with epoch %d of %d", self.epoch + 1, new[self.stage])

    def save(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Write a checkpoint; without an optimiser between two stages."""
        if not self.team.leads or self.fold:
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
                "figures": self.figures,
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
        stages = plan_stages(self.method.stages(), self.config, self.planned_for)
        if self.fold:
            stages = [same_steps(stage, self.config, self.planned_for, self.count) for stage in stages]
        while self.stage < len(stages):
            self.run_stage(stages)
            self.stage, self.epoch, self.optimizer_state, self.figures = self.stage + 1, 0, None, []
            if self.stage == len(stages):
                self.method.eval()
                with torch.no_grad():
                    self.method.finish(self.batches())
            self.save(None)

    def batches(self) -> Iterator[Tensor]:
        """The frozen outputs of all training images, in order."""
        for first in range(0, self.count, AT_ONCE):
            yield self.features.fetch(torch.arange(first, min(first + AT_ONCE, self.count)), self.device)

    def run_stage(self, stages: Sequence[Stage]) -> None:
        """Train what is left of the present stage."""
        stage, whole = stages[self.stage], sum(stage.epochs for stage in stages)
        steps = stage.steps_per_epoch(self.count, self.config)
        self.method.begin(stage)
        if not self.epoch:
            self.method.eval()
            with torch.no_grad():
                self.method.prepare(self.batches())
        self.loss = torch.compile(self.method.loss) if self.config.compile else self.method.loss
        optimizer = make_optimizer(self.method, stage, self.config)
        if self.optimizer_state is not None:
            optimizer.load_state_dict(self.optimizer_state)
        name = f"{self.fold} {stage.name}".lstrip()
        after = (sum(later.epochs for later in stages[self.stage + 1 :]) + self.after * whole) * self.count
        with Progress(name, stage.epochs * self.count, start=self.epoch * self.count, after=after) as progress:
            while self.epoch < stage.epochs and not self.settled:
                self.run_epoch(stage, optimizer, steps, progress)
                self.epoch += 1
                if self.epoch < stage.epochs and time.monotonic() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                    self.save(optimizer)
        if self.config.average:
            use_average(optimizer)
        if self.settled and self.epoch < stage.epochs:
            self.ended = self.epoch * steps
            log.info(
                "training ends after %d steps: drawn defects are found no better (AUROC %s)", self.ended, self.told
            )

    @property
    def settled(self) -> bool:
        """Whether the last test has found drawn defects hardly better than one before it."""
        return self.decides and len(self.figures) > 1 and self.figures[-1] < max(self.figures[:-1]) + LEAST_RISE

    @property
    def told(self) -> str:
        """The figures of all tests, for a message."""
        return ", ".join(f"{figure:.2f}" for figure in self.figures)

    def keep_end(self, steps: int) -> None:
        """Make ``steps`` those of the run, also for a resumed one; 0 changes nothing."""
        if not steps:
            return
        self.settings = replace(self.settings, config=replace(self.config, steps=steps))
        self.config = self.method.config = self.settings.config
        if self.team.leads:
            save_settings(self.run, self.settings)

    def run_epoch(self, stage: Stage, optimizer: torch.optim.Optimizer, steps: int, progress: Progress) -> None:
        """One pass over the training set in an order that depends on seed, stage and epoch alone.

        Loss terms stay on the device and are read once, at the end: a step never waits for a GPU.
        """
        self.method.train()
        generator = torch.Generator().manual_seed(self.seed_of(self.epoch))
        order = torch.randperm(self.count, generator=generator).to(self.features.place)
        sums: dict[str, Tensor] = {}
        began = time.monotonic()
        for step, indices in enumerate(order.split(stage.batch_size or self.config.batch_size)):
            place, total = self.epoch * steps + step, stage.epochs * steps
            share = learning_rate(self.config, place, steps, total, stage.period * steps)
            rate = (stage.lr or self.config.lr) * share
            if self.team.size > 1 and not self.method.draws_for_batch:
                # Other numbers in every process, that depend on nothing before: parts of a batch differ in length.
                torch.manual_seed(self.seed_of(self.epoch, step, self.team.rank))
            self.method.step = self.epoch * steps + step
            terms = self.train_step(optimizer, indices, rate)
            if self.config.average:
                average_weights(optimizer, self.config.average, self.epoch * steps + step)
            for name, value in terms.items():
                part = value.double() * len(indices) / self.count
                sums[name] = sums[name] + part if name in sums else part
            found = f"  drawn defects {self.figures[-1]:.2f} AUROC" if self.figures else ""
            progress.step(len(indices), f"epoch {self.epoch + 1}/{stage.epochs}{found}")
        values = dict(zip(sums, torch.stack([*sums.values()]).tolist()))
        if not math.isfinite(values["loss"]):
            self.fail(stage, values["loss"])
        speed = self.count / (time.monotonic() - began)
        every = self.config.patience if self.decides else max(stage.epochs * steps // TESTS, LEAST_STEPS)
        due = (self.epoch + 1) * steps // every > self.epoch * steps // every
        if due and stage.scores and self.test:
            figure = self.test(self.method) if self.team.leads else None
            if self.decides:
                figure = self.team.agree(figure)
            if figure is not None:
                self.figures.append(figure)
                values["drawn_auroc"] = figure
        line = {"stage": stage.name, "stage_index": self.stage, "epoch": self.epoch + 1, **values, "lr": rate}
        if self.team.leads and not self.fold:
            append_line(self.run / LOG_FILE, json.dumps({**line, "images_per_second": round(speed, 2)}))

    def fail(self, stage: Stage, loss: float) -> NoReturn:
        """Give up. Another run may take the place of this one, unless this one had been finished before."""
        setting = stage.lr_option
        message = f"the loss became {loss}; train again with a smaller `{setting}` than {getattr(self.config, setting)}"
        if self.team.leads and not self.finished_before:
            write_text(self.run / FAILED_FILE, f"the loss became {loss}\n")
            message += f"; `out={self.run}` may be the same"
        raise UserError(message)

    def seed_of(self, *place: int) -> int:
        """The seed for a place in training: from seed, stage and the numbers given (epochs, steps and ranks)."""
        seed = self.settings.seed * 1009 + self.stage
        for number in place:
            seed = seed * 1_000_003 + number
        return seed % 2**63

    def train_step(self, optimizer: torch.optim.Optimizer, indices: Tensor, rate: float) -> dict[str, Tensor]:
        """One optimiser step; returns the loss terms, scalars on the device."""
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        values: dict[str, Tensor] = {}
        for batch in indices.chunk(self.config.accumulate):
            part, count = self.team.part(batch)
            share = count / len(indices)
            for name, value in self.add_gradients(part, share).items():
                values[name] = values[name] + share * value if name in values else share * value
        trained = [p for g in optimizer.param_groups for p in g["params"]]
        values = self.team.add_up(trained, values)
        if self.config.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(trained, self.config.clip_norm)
        optimizer.step()
        return values

    def add_gradients(self, indices: Tensor, share: float) -> dict[str, Tensor]:
        """Backward pass of ``share`` times the loss of some images; returns the loss terms."""
        features = self.features.fetch(indices, self.device)
        if self.team.size > 1:
            set_counts(self.method, share > 0)
        with autocast(self.config.precision, self.device):
            terms = self.loss(features)
        (terms["loss"] if share == 1 else terms["loss"] * share).backward()
        return {name: term.detach().float() for name, term in terms.items()}


def to_measure(loop: Loop, samples: Sequence[Sample], cache: FeatureCache, split: Split) -> Measured:
    """The images that set the threshold, of which nothing is measured yet."""
    rows = split.scored or split.train
    groups = [split.groups.get(row) for row in rows]
    return Measured(loop.method, [samples[row] for row in rows], loop.run, cache, rows, groups)


def cross_fit(loop: Loop, samples: Sequence[Sample], cache: FeatureCache, split: Split, reading: Reading) -> Measured:
    """The images of each fold measured by a network that trained on all other good images, as many as the final one.

    Those held out are left to the final network. The result is kept in the run until the end of training, for a resumed
    one.
    """
    method, rows = loop.method, split.scored
    place_of = {row: place for place, row in enumerate(rows)}
    measured = to_measure(loop, samples, cache, split)
    if measured.load(loop.run / FOLDS_FILE, fold_key(loop, split)):
        return measured
    drawn_on = draw_sources(loop.config, loop.settings.seed, rows)
    for number, fold in enumerate(split.folds, 2):
        settings, decides = loop.settings, number == 2
        torch.manual_seed(settings.seed)
        network = with_weights(settings, loop.run, None)[0].to(loop.device)
        out = set(fold)
        others = Part(cache, [row for row in sorted([*split.train, *split.held]) if row not in out])
        name = f"fold {number}/{len(split.folds) + 1}"
        own = Loop(
            network,
            settings,
            loop.run,
            others,
            loop.device,
            loop.team,
            fold=name,
            planned_for=loop.count,
            after=len(split.folds) + 2 - number,
            test=DrawnTest(method, [samples[row].path for row in fold], reading, settings.seed, decides=decides),
            decides=decides,
        )
        network.fit(own.batches())
        own.run_stages()
        loop.keep_end(own.ended)
        places = [place_of[row] for row in fold]
        measured.add(network, places, measured.features(method, places, Part(cache, fold), reading))
        drawn = [place_of[row] for row in fold if row in drawn_on]
        measured.add_drawn(network, method, drawn, reading, settings.seed)
    if loop.team.leads:
        measured.save(loop.run / FOLDS_FILE, fold_key(loop, split))
    return measured


def fold_key(loop: Loop, split: Split) -> str:
    """What the networks of the folds depend on, as a checksum."""
    settings = loop.settings
    return hashlib.sha256(repr((settings.config, settings.seed, split.folds, loop.fingerprint)).encode()).hexdigest()
