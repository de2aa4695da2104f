"""FeatureExtractor: the backbone that an `Architecture` describes, and its weights."""

import copy
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vitlite.backbones import checkpoint
from vitlite.backbones.architecture import Architecture, Convention, Naming
from vitlite.backbones.base import Backbone, check_images, random_source
from vitlite.backbones.fused import fuse_layers
from vitlite.backbones.layers import ConvUnit, FrozenNorm
from vitlite.backbones.published import locate
from vitlite.errors import UserError


class FeatureExtractor(Backbone):
    """A frozen convolutional network.

    mean and std are buffers (1, 3, 1, 1) for images in [0, 1]. The state dict holds the convention of the checkpoint
    too (padding, epsilon, normalisation), so an extractor created with weights="none" gives the same maps once it has
    loaded it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture, strides: Sequence[int] | None = None) -> None:
        super().__init__()
        self.name = architecture.name
        self.strides = _checked(architecture, strides)
        built = [stage for stage in architecture.stages if stage.stride <= self.strides[-1]]
        self.channels = tuple(stage.channels for stage in built if stage.stride in self.strides)
        self._returned = tuple(stage.stride in self.strides for stage in built)
        self.weights_source = "not loaded"
        # Built without memory and without drawing from the global generator; the weights are filled in afterwards.
        with torch.device("meta"):
            self.stages = nn.ModuleList(stage.build() for stage in built)
        self.to_empty(device="cpu")
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))
        self.set_convention(architecture.convention(None, ""))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """As `Backbone.forward`. Raises ValueError for another shape or dtype."""
        check_images(images)
        x, maps = self._normalised(images), []
        for stage, returned in zip(self.stages, self._returned):
            x = stage(x)
            if returned:
                maps.append(x)
        return tuple(maps)

    def _normalised(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def fused(self) -> "FeatureExtractor":
        """A copy for inference with the same maps up to rounding: see `vitlite.backbones.fused`."""
        return FusedExtractor(self)

    def set_convention(self, convention: Convention) -> None:
        """Padding, epsilon and input normalisation of the checkpoint whose weights are, or will be, in place."""
        self._set_padding(convention.same, convention.eps)
        self.mean.copy_(torch.tensor(convention.mean, dtype=torch.float64).view(1, 3, 1, 1))
        self.std.copy_(torch.tensor(convention.std, dtype=torch.float64).view(1, 3, 1, 1))

    def _set_padding(self, same: bool, eps: float) -> None:
        self._same, self._eps = same, eps
        for module in self.modules():
            if isinstance(module, ConvUnit):
                module.same = same
            elif isinstance(module, FrozenNorm):
                module.eps = eps

    def get_extra_state(self) -> Tensor:
        # A tensor, so that any loader with weights_only=True and any tensor-only format can hold it.
        return torch.tensor([float(self._same), self._eps], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        same, eps = state.tolist()
        self._set_padding(bool(same), eps)

    def extra_repr(self) -> str:
        maps = ", ".join(f"{s}: {c}" for s, c in zip(self.strides, self.channels))
        return f"{self.name}, channels by stride {{{maps}}}, weights: {self.weights_source}"


class FusedExtractor(FeatureExtractor):
    """What `FeatureExtractor.fused()` returns: an inference-only copy, whose state dict has other keys."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        nn.Module.__init__(self)
        for attribute in ("name", "strides", "channels", "weights_source", "_returned", "_same", "_eps"):
            setattr(self, attribute, getattr(extractor, attribute))
        self.register_buffer("mean", extractor.mean.clone())
        self.register_buffer("std", extractor.std.clone())
        self.stages = copy.deepcopy(extractor.stages)
        fuse_layers(self.stages)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not among torch's annotations
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """As `FeatureExtractor.forward`; the maps are channels-last and carry no gradients."""
        # Small enough for the cache, large enough to share between the threads.
        size = max(2, torch.get_num_threads())
        if images.device.type != "cpu" or torch.compiler.is_compiling() or len(images) <= size:
            return super().forward(images)
        parts = [super(FusedExtractor, self).forward(part) for part in images.split(size)]
        return tuple(torch.cat(maps) for maps in zip(*parts))

    def _normalised(self, images: Tensor) -> Tensor:
        # The first convolution decides the layout of everything after it.
        return super()._normalised(images).contiguous(memory_format=torch.channels_last)

    def fused(self) -> "FusedExtractor":
        return self

    def _set_padding(self, same: bool, eps: float) -> None:
        raise RuntimeError("a fused extractor cannot change its convention: load the state dict first, then fuse")


def _checked(architecture: Architecture, strides: Sequence[int] | None) -> tuple[int, ...]:
    """The requested strides as a tuple. Raises UserError, which says which ones there are."""
    if strides is None:
        return architecture.strides
    known = [stage.stride for stage in architecture.stages]
    strides = tuple(strides)
    if not strides or any(s not in known for s in strides) or list(strides) != sorted(set(strides)):
        given = ",".join(map(str, strides))
        raise UserError(
            f"`strides={given}`: {architecture.name} has {', '.join(map(str, known))}; give some, ascending"
        )
    return strides


Create = Callable[[str, str | os.PathLike, Sequence[int] | None, int], FeatureExtractor]


def family(architecture: Callable[[str], Architecture]) -> tuple[Create, Callable[[str], str]]:
    """The functions `create` and `whereabouts` of a file that describes its networks by `architecture(name)`."""

    def create(name: str, weights: str | os.PathLike, strides: Sequence[int] | None, seed: int) -> FeatureExtractor:
        described = architecture(name)
        extractor = FeatureExtractor(described, strides)
        found = locate(weights, described.published, name)
        if found is None:
            randomise(extractor, seed)
            extractor.weights_source = random_source(seed)
        else:
            load(extractor, described, found[0])
            extractor.weights_source = found[1]
        return extractor

    return create, lambda name: architecture(name).published.whereabouts()


def load(extractor: FeatureExtractor, architecture: Architecture, path: os.PathLike | str) -> None:
    """Put the weights of a checkpoint file into an extractor. Raises UserError if they do not fit."""
    tensors = checkpoint.read(Path(path))
    naming = _naming(architecture, tensors, path)
    wanted = {key: value for key, value in extractor.state_dict().items() if key.startswith("stages.")}
    found = checkpoint.match(architecture.name, path, naming.keys(), wanted, tensors, naming.ignored)
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(found[key])
    extractor.set_convention(architecture.convention(naming.owner, os.fspath(path)))


def _naming(architecture: Architecture, tensors: dict[str, Tensor], path: os.PathLike | str) -> Naming:
    """The naming whose telling key is there. Raises UserError if none is."""
    for naming in architecture.namings:
        if naming.probe in tensors:
            return naming
    known = "; ".join(f"{naming.owner}: {naming.probe}" for naming in architecture.namings)
    raise UserError(
        f"weights {path} do not fit {architecture.name}: the keys ({', '.join(list(tensors)[:3])}, ...) "
        f"are none of those it knows ({known})"
    )


def randomise(extractor: FeatureExtractor, seed: int) -> None:
    """Random weights from a generator of their own: He initialisation (fan in, per group) of every convolution.

    The norms take their statistics from one pass of random images, so that features keep their scale at any depth,
    as they would in an untrained network that normalises each batch.
    """
    generator = torch.Generator().manual_seed(seed)
    handles = []
    for module in extractor.modules():
        if isinstance(module, ConvUnit):
            weight = module.conv.weight
            gain = 1.0 if module.activation is None else 2.0
            torch.nn.init.normal_(weight, std=math.sqrt(gain / weight[0].numel()), generator=generator)
            if module.conv.bias is not None:
                torch.nn.init.zeros_(module.conv.bias)
        elif isinstance(module, FrozenNorm):
            torch.nn.init.ones_(module.weight)
            torch.nn.init.zeros_(module.bias)
            handles.append(module.register_forward_pre_hook(_take_statistics))
    with torch.no_grad():
        extractor(torch.rand(4, 3, 64, 64, generator=generator))
    for handle in handles:
        handle.remove()


def _take_statistics(norm: FrozenNorm, inputs: tuple[torch.Tensor]) -> None:
    # One scale for all channels: features of an untrained network hardly vary within a channel, and dividing what
    # variation there is by its own small size would enlarge rounding errors layer by layer.
    norm.running_mean.zero_()
    norm.running_var.fill_(inputs[0].square().mean())
