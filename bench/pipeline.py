"""Whether images come as fast as the methods take them.

Training reads every image once, keeps what no step changes (frozen features, or the image at the size of the network)
and then takes its batches from there: the table gives the part of a step that fetching the batch takes. Scoring
decodes images on threads while the network computes: the table gives its speed from files and from images that are in
memory already, in alternating rounds, and how fast decoding alone is.

Example: vitlite bench pipeline --data parts --methods sivt,memca
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vitlite.data import open_dataset
from vitlite.engine.features import FeatureCache, Part, cache_features, to_images
from vitlite.engine.loop import Loop
from vitlite.engine.settings import RunSettings, build_method
from vitlite.images.loading import readable_batches
from vitlite.methods.base import Method
from vitlite.methods.schedule import make_optimizer

from ._machine import described, machine, parser_of
from ._runs import method_names, settings_for, synthetic


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    p = parser_of("pipeline", __doc__)
    p.add_argument("--methods", default="", help="names with commas; default: all there are")
    p.add_argument("--data", default="", help="data set folder; default: synthetic")
    p.add_argument("--category", default="all")
    p.add_argument("--preset", default="quick")
    p.add_argument("--weights", default="none", help="of pretrained parts: none (the same work) | auto | PATH")
    p.add_argument("--steps", type=int, default=12, help="timed training steps")
    p.add_argument("--images", type=int, default=64, help="images that are scored and trained on, at most")
    p.add_argument("--rounds", type=int, default=3, help="of scoring")
    p.add_argument("--device", default="cpu")
    options = p.parse_args(args)
    if min(options.steps, options.images, options.rounds) < 1:
        p.error("--steps, --images and --rounds must be at least 1")
    return options


def main(args: Sequence[str] | None = None) -> int:
    options = parse(args)
    names = method_names(options.methods)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(options.data) if options.data else synthetic(Path(folder))
        paths = [s.path for s in open_dataset(data, options.category).train][: options.images]
        print(described(machine(options.device)))
        print(f"{len(paths)} images of {data.name}, preset {options.preset}\n")
        print(line("", "a training step", "of that", "scored, images/s", "", "", "decoded"))
        print(line("", "ms", "fetching", "from files", "from memory", "ratio", "alone"))
        for name in names:
            settings = settings_for(name, data, options.category, options.preset)
            method = untrained(settings, options)
            step, fetching = training(method, settings, paths, Path(folder), options)
            files, memory, decoding = scoring(method, paths, options)
            figures = (f"{step * 1e3:.1f}", f"{fetching:.2%}", f"{files:.1f}", f"{memory:.1f}", f"{files / memory:.2f}")
            print(line(name, *figures, f"{decoding:.0f}"), flush=True)
    return 0


def line(*cells: str) -> str:
    return cells[0].ljust(8) + "".join(cell.rjust(17) for cell in cells[1:])


def untrained(settings: RunSettings, options: argparse.Namespace) -> Method:
    """A method with random weights, which computes what a trained one does."""
    return build_method(settings, weights=options.weights).to(options.device)


class TimedCache(FeatureCache):
    """A feature cache that adds up how long it is waited for."""

    def __init__(self, cache: FeatureCache) -> None:
        self.values, self.kept_as, self.tiles, self.seconds = cache.values, cache.kept_as, cache.tiles, 0.0

    def take(self, indices: Tensor | slice) -> Tensor:
        """As the cache's."""
        began = time.perf_counter()
        values = super().take(indices)
        self.seconds += time.perf_counter() - began
        return values


def training(
    method: Method, settings: RunSettings, paths: list[Path], folder: Path, options: argparse.Namespace
) -> tuple[float, float]:
    """(seconds of a step of the longest stage as the trainer runs it, its part that fetching takes); 0 without one."""
    device = torch.device(options.device)
    cache, indices = cache_features(method, paths, folder, device)
    method.fit(cache[i : i + 64].to(device) for i in range(0, len(indices), 64))
    if not method.stages():
        return 0.0, 0.0
    timed, c = TimedCache(cache), method.config
    loop = Loop(method, settings, folder, Part(timed, range(len(indices))), device)
    stage = max(method.stages(), key=lambda s: s.epochs)
    method.begin(stage)
    optimizer = make_optimizer(method, stage, c)
    method.train()
    batches = [torch.randint(len(indices), (c.batch_size,)) for _ in range(options.steps + 2)]
    for batch in batches[:2]:
        loop.train_step(optimizer, batch, c.lr)
    timed.seconds, began = 0.0, time.perf_counter()
    for batch in batches[2:]:
        loop.train_step(optimizer, batch, c.lr)
    seconds = time.perf_counter() - began
    return seconds / options.steps, timed.seconds / seconds


def scoring(method: Method, paths: list[Path], options: argparse.Namespace) -> tuple[float, ...]:
    """Images per second: scored from files, scored from memory, decoded and resized without being scored."""
    device, view = torch.device(options.device), method.config.view
    method.eval()
    kept = [batch.pixels for batch in readable_batches(paths, view, 8)]

    def rate(of: Iterable[Tensor | None]) -> float:
        began = time.perf_counter()
        for images in of:
            if images is not None:
                method.anomaly(images)[1].cpu()
        return len(paths) / (time.perf_counter() - began)

    ways: dict[str, Callable[[], Iterable[Tensor | None]]] = {
        "files": lambda: (to_images(batch.pixels, device) for batch in readable_batches(paths, view, 8)),
        "memory": lambda: (to_images(pixels, device) for pixels in kept),
        "decoded": lambda: (None for _ in readable_batches(paths, view, 8)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    rate(ways["memory"]())
    for _ in range(options.rounds):
        for name, way in ways.items():
            rates[name].append(rate(way()))
    return tuple(statistics.median(values) for values in rates.values())
