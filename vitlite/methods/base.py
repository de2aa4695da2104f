"""The contract of a method: a frozen config, and a module that gives a loss and an anomaly map.

The trainer knows nothing else about a method. It computes ``frozen(images)`` of every training image once and keeps the
result, calls ``fit(...)`` with these features, minimises ``loss(features)["loss"]`` over the parameters of each
training stage, and scores with ``anomaly(images)``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite.backbones import Backbone
from vitlite.methods.ablations import Table
from vitlite.methods.config import AUTO, PLACES, SCORES, TrainingConfig
from vitlite.methods.kinds import NONE, Switch
from vitlite.nn.score import Places, compare, score_of

COARSE_SIDE = 16  # of the maps by which images are compared


@dataclass(frozen=True)
class Stage:
    """One stretch of training: its name, its number of epochs, and which parameters it trains."""

    name: str
    epochs: int
    trains: tuple[str, ...] = ("",)  # prefixes of parameter names; by default all parameters
    lr: float = 0.0  # peak learning rate; 0: the config's
    batch_size: int = 0  # images per optimiser step; 0: the config's
    lr_option: str = "lr"  # the config's field that sets the rate
    period: int = 0  # epochs of a whole cosine, down and up; 0: half a cosine over all epochs
    scores: bool = True  # whether the network's scores say something before the next stage

    def steps_per_epoch(self, images: int, config: TrainingConfig) -> int:
        """Optimiser steps of one pass over this number of training images."""
        return -(-images // (self.batch_size or config.batch_size))


class Method(nn.Module):
    """Base of all methods."""

    presets: ClassVar[dict[str, TrainingConfig]]  # "paper", "quick" and others
    ablations: ClassVar[dict[str, Table]] = {}  # tables that `vitlite ablate` runs, by name
    # dtype in which features are kept: "float32", "float16", or "uint8" for plain images, without loss
    cache_as: ClassVar[str] = "float32"
    draws_for_batch: ClassVar[bool] = False  # whether ``loss`` draws for a whole batch, and nothing for single images

    least_deviation: ClassVar[float | None] = None  # of a place, added to that of good images: see Places
    precisions: ClassVar[tuple[str, ...]] = ("float32",)  # in which the trained network can score
    exports: ClassVar[tuple[str, ...]] = ("float32",)  # precisions in which `vitlite export` can write it
    start_source: str | None = None  # where the weights that are trained come from; None: they are random
    default_score: ClassVar[str] = "max"  # what ``score=auto`` stands for until training decides, and if in doubt

    default_places: ClassVar[str] = "scaled"  # likewise of ``places=auto``

    config: TrainingConfig
    scoring: str = "float32"  # the precision in which ``values`` runs the trained network; all else is float32
    stage: str | None = None  # name of the training stage that ``loss`` is called in
    step: int = 0  # of the optimiser in that stage, counted from 0: the one that ``loss`` is called for
    _trainable: set[str] | None = None  # names of the parameters that any stage trains

    def __init__(self, config: TrainingConfig, weights: str | None = None) -> None:
        """``weights`` takes the place of ``config.weights``: "none" if a checkpoint will fill the weights in."""
        super().__init__()
        self.config = config
        self.places = Places(self.usual_places(config.places), self.places_shape, self.least_deviation)

    def set_head(self, score: str, places: str, compare_maps: Switch | None = None) -> None:
        """Change how maps and scores are made: the settings of these names; None: as it is."""
        shown = self.config.compare_maps if compare_maps is None else compare_maps
        self.config = replace(self.config, score=score, places=places, compare_maps=shown)
        self.places.how = self.usual_places(places)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """As torch's; a state without statistics of places (of version 0.1.0) leaves them as they are."""
        return super().load_state_dict(self.places.state_dict(prefix="places.") | dict(state_dict), *args, **options)

    def usual_places(self, places: str) -> str:
        """The setting ``places``, or what ``auto`` stands for."""
        return self.default_places if places == AUTO else places

    @classmethod
    def config_class(cls) -> type[TrainingConfig]:
        """The class of the method's configs."""
        return type(cls.presets["paper"])

    def stages(self) -> tuple[Stage, ...]:
        """Training stages in order."""
        return (Stage("train", self.config.epochs),)

    def begin(self, stage: Stage) -> None:
        """Called before a stage's first step, and again when a resumed run goes on within the stage.

        Parameters that other stages train need no gradient in this one.
        """
        self.stage = stage.name
        if self._trainable is None:
            self._trainable = {name for name, p in self.named_parameters() if p.requires_grad}
        for name, parameter in self.named_parameters():
            if name in self._trainable:
                parameter.requires_grad_(name.startswith(tuple(stage.trains)))

    @property
    def backbone_name(self) -> str | None:
        """Name of the frozen network that gives the features; None without one."""
        return next((part.name for part in self.children() if isinstance(part, Backbone)), None)

    @property
    def weights_source(self) -> str | None:
        """Where pretrained parts, or parts that could be, took their weights from; None without such parts."""
        sources = (getattr(part, "weights_source", None) for part in self.children())
        return next((source for source in sources if source), None)

    @property
    def image_score(self) -> str:
        """How the score of an image comes from its map, in words."""
        at = f"at {self.seen_size} pixels"
        if self.config.tile:
            return f"highest of the tiles: {self.score_name} of the map of {self.config.tile} pixels {at}"
        return f"{self.score_name} of the map {at}"

    @property
    def seen_size(self) -> str:
        """The size of images that come to the network, in words: the side of a square, or width and height."""
        size = self.config.view.size
        return f"{size[1]} x {size[0]}" if isinstance(size, tuple) else str(size)

    @property
    def score_name(self) -> str:
        """The setting ``score``, or what ``auto`` stands for."""
        return self.default_score if self.config.score == AUTO else self.config.score

    @property
    def places_name(self) -> str:
        """The setting ``places``, or what ``auto`` stands for; "none" if the places were never learned."""
        if not self.places.learned:
            return NONE
        return self.places.how

    @property
    def places_shape(self) -> tuple[int, ...]:
        """(h, w) of what ``values`` gives for an image."""
        return self.config.image_shape

    def frozen(self, images: Tensor) -> Tensor:
        """Float images (B, 3, S, S) in [0, 1] to what ``loss`` reads: everything that no training changes."""
        return images

    def coarse(self, features: Tensor) -> Tensor:
        """``frozen`` features as one vector for each image (B, d), by which images are compared.

        Default: all of them; of maps (B, C, h, w) at most 16 by 16 places.
        """
        if features.ndim == 4 and max(features.shape[2:]) > COARSE_SIDE:
            features = F.adaptive_avg_pool2d(features, COARSE_SIDE)
        return features.flatten(1)

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take statistics of the training set, or a bank, from batches of ``frozen`` features.

        Called once, before training. An update calls it with the images of the earlier run and the new ones.
        """

    def prepare(self, batches: Iterable[Tensor]) -> None:
        """Start what a stage trains from the same batches. Called once, after ``begin``, in evaluation mode."""

    def finish(self, batches: Iterable[Tensor]) -> None:
        """Take statistics of the trained network from the same batches. Called once, in evaluation mode."""

    def loss(self, features: Tensor) -> dict[str, Tensor]:
        """``frozen`` features of a batch to scalar terms by name; ``"loss"`` is minimised."""
        raise NotImplementedError

    @torch.no_grad()
    def anomaly(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Float images (B, 3, S, S) in [0, 1] to maps (B, S, S) and scores (B,), float32; larger is more anomalous."""
        return self.anomaly_from(self.frozen(images))

    @torch.no_grad()
    def anomaly_from(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``anomaly`` from ``frozen`` features."""
        values, errors = self.measure(features)
        return self.maps_and_scores(values, self.places(values), errors)

    def maps_and_scores(self, values: Tensor, compared: Tensor, errors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Maps (B, S, S) of ``values``, and scores (B,) from those of ``compared``, which are these values by place."""
        seen = self.maps(compared)
        maps = seen if self.config.compare_maps or compared is values else self.maps(values)
        return maps, self.scores(seen, compared, errors)

    def scores(self, maps: Tensor, values: Tensor, errors: Tensor | None, how: str | None = None) -> Tensor:
        """Scores (B,) from maps, compared ``values`` and what ``measure`` gave beside them; ``how``: by another."""
        how = how or self.score_name
        return self.own_score(how, values, errors) if how in self.config.own_scores else score_of(maps, how)

    def every_score(self, values: Tensor, errors: Tensor | None) -> dict[tuple[str, str], Tensor]:
        """Scores (B,) from what ``measure`` gave, by each (score, places); of places "none" alone if never learned."""
        found = {}
        for places in PLACES if self.places.learned else (NONE,):
            compared = compare(values, places, self.places.level, self.places.scale)
            maps = self.maps(compared)
            for score in (*self.config.own_scores, *SCORES):
                found[score, places] = self.scores(maps, compared, errors, score)
        return found

    def values(self, features: Tensor) -> Tensor:
        """The anomaly at every place (B, h, w) from ``frozen`` features; larger is more anomalous.

        A method whose ``maps`` joins several gives (B, n, h, w): each of them is compared by place, then joined.
        """
        raise NotImplementedError

    def measure(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """``values``, and one number for each image (B,) if ``own_score`` needs it beside them."""
        return self.values(features), None

    def maps(self, values: Tensor) -> Tensor:
        """Maps (B, S, S) from ``values`` that may have been compared place by place. Default: the values themselves."""
        return values

    def parts(self, features: Tensor) -> dict[str, Tensor]:
        """What shows people how maps come about, by name, from ``frozen`` features; only computed if asked for.

        Each is an image (B, 3, S, S) in [0, 1], such as a reconstruction, or a map (B, S, S), such as a term of the
        map. Default: none.
        """
        return {}

    def feature_maps(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of a method that reconstructs features: (B, C, h, w) of ``frozen`` features, and their reconstruction."""
        raise NotImplementedError

    def own_score(self, how: str, values: Tensor, errors: Tensor | None) -> Tensor:
        """Scores (B,) by one of ``config.own_scores``, from compared ``values`` and what ``measure`` gave with them."""
        raise NotImplementedError
