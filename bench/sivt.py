"""Speed of SIVT on this machine: training steps against a plain eager implementation, and scoring from files.

The plain one is Algorithm 1 written down as it stands: every sequence through every block in full, float32, torch's
scaled_dot_product_attention, default AdamW and allocator. Each alternative runs in a process of its own (the
allocator setting is per process), in alternating rounds, on the same network, features and batch size. Nothing is
reported unless both give the same reconstruction.

Example: vitlite bench sivt --rounds 3
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vitlite import backbones
from vitlite.data import list_images
from vitlite.engine.detector import Detector
from vitlite.engine.distributed import autocast, keep_freed_memory
from vitlite.methods.induction import SelfInduction
from vitlite.methods.sivt import SIVT, Config, residuals

from ._machine import described, in_a_process, machine, parser_of
from ._runs import brief_run, scoring_rate, settings_for, synthetic

PAPER_FPS = 13.7  # Table II of the paper, on an A100
ALTERNATIVES = ("plain eager", "ours, float32", "ours, auto precision")


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of("sivt", __doc__)
    parser.add_argument("--preset", default="quick", help="whose network: quick or paper")
    parser.add_argument("--rounds", type=int, default=3, help="processes per alternative")
    parser.add_argument("--steps", type=int, default=12, help="timed training steps per process")
    parser.add_argument("--images", type=int, default=96, help="images to score")
    parser.add_argument("--worker", choices=ALTERNATIVES, help=argparse.SUPPRESS)
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    options = parse(args)
    if options.worker:
        print(json.dumps(train_speed(options)))
        return 0
    error = disagreement(options.preset)
    if not error < 1e-4:
        print(f"refused: plain and ours differ by {error:.2e} on the same weights", file=sys.stderr)
        return 1
    print(described(machine()))
    print(f"SIVT, preset {options.preset}; largest difference from the plain implementation {error:.1e}")
    report_training(options)
    report_scoring(options)
    return 0


def report_training(options: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {name: [] for name in ALTERNATIVES}
    for _ in range(options.rounds):
        for name in ALTERNATIVES:
            size = ("--preset", options.preset, "--steps", options.steps)
            rates[name].append(in_a_process("sivt", "--worker", name, *size))
    base = median(rates[ALTERNATIVES[0]])
    print(f"\n{'training on cached features':28} images/s   best  against plain")
    for name, values in rates.items():
        print(f"{name:28} {median(values):8.1f} {max(values):6.1f}  {median(values) / base:12.2f}x")


def network(preset: str) -> tuple[Config, SelfInduction]:
    """A preset's transformer, for the feature channels of its backbone, with random weights."""
    config = SIVT.presets[preset]
    assert isinstance(config, Config)
    channels = sum(backbones.create(config.backbone, weights="none", strides=config.strides or None).channels)
    torch.manual_seed(0)
    return config, SelfInduction(config, channels * config.patch**2)


def plain_forward(net: SelfInduction, patches: Tensor, order: Tensor) -> Tensor:
    """Algorithm 1 line by line on the weights of a ``SelfInduction``."""
    x, star = net.embed(patches) + net.positions, net.induction + net.positions
    latent = torch.zeros_like(x)
    for subset in order.tensor_split(net.subsets):
        sequence = x.clone()
        sequence[:, subset] = star[subset]
        for block in net.encoder:
            sequence = plain_block(block, sequence)
        latent[:, subset] = net.encoder_norm(sequence)[:, subset]
    y = latent + net.decoder_positions
    for block in net.decoder:
        y = plain_block(block, y)
    return net.head(net.decoder_norm(y))


def plain_block(block: Any, x: Tensor) -> Tensor:
    heads = block.attn.heads
    qkv = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
    x = x + block.attn.proj(y)
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


def disagreement(preset: str) -> float:
    """Largest difference between the plain reconstruction and ours, over the largest value."""
    config, net = network(preset)
    length = math.prod(config.tokens)
    patches, order = torch.randn(2, length, net.embed.in_features), torch.randperm(length)
    with torch.no_grad():
        plain = plain_forward(net, patches, order)
        return float((net(patches, order) - plain).abs().max() / plain.abs().max())


def train_speed(options: argparse.Namespace) -> float:
    """Images per second of one alternative's training steps (forward, loss, backward, AdamW)."""
    plain = options.worker == ALTERNATIVES[0]
    if not plain:
        keep_freed_memory()
    config, net = network(options.preset)
    precision = "auto" if options.worker == ALTERNATIVES[2] else "float32"
    length = math.prod(config.tokens)
    patches = torch.randn(config.batch_size, length, net.embed.in_features)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=None if plain else True)

    def step() -> None:
        order = torch.randperm(length)
        with autocast(precision, torch.device("cpu")):
            output = plain_forward(net, patches, order) if plain else net(patches, order)
        l2, cosine = residuals(patches.transpose(1, 2), output.float().transpose(1, 2))
        optimizer.zero_grad()
        (l2.mean() + config.cosine_weight * cosine.mean()).backward()
        optimizer.step()

    step()
    step()
    times = []
    for _ in range(options.steps):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return config.batch_size / median(times)


def report_scoring(options: argparse.Namespace) -> None:
    """Images per second from image files to scores, maps at original size and overlays, with and without writing."""
    with tempfile.TemporaryDirectory() as folder:
        data = synthetic(Path(folder))
        detector = Detector(brief_run(settings_for("sivt", data, preset=options.preset), Path(folder) / "run"), "cpu")
        paths = [str(p) for p in list_images([str(data)]) if "_mask" not in p.name][: options.images]
        rates = [scoring_rate(detector, paths, overlays=overlays) for overlays in (False, True)]
    print(f"\nscoring {len(paths)} files of 256x256 on {torch.get_num_threads()} CPU threads, images/s:")
    print(f"predict, CSV alone           {rates[0]:8.1f}")
    print(f"predict, with overlays       {rates[1]:8.1f}")
    print(f"the paper, on an A100        {PAPER_FPS:8.1f}")
