"""Whether pictures come as fast as the methods take them.

Training reads every picture once, keeps what no step changes (frozen features, or the picture at the network's size)
and then takes its batches from there: the table gives the part of a step that goes into fetching the batch. Scoring
decodes pictures on threads while the network computes: the table gives its speed from files and from pictures that lie
in memory already, in alternating rounds, and how fast decoding alone is.

Example: vitlite bench pipeline --data parts --methods sivt,memca
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

METHODS = "sivt,anovit,l2cae,vtadl,memca,isstad"


def parse(args):
    parser = argparse.ArgumentParser(prog="vitlite bench pipeline", description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=METHODS, help="names with commas; default: all")
    parser.add_argument("--data", default="", help="data set folder; default: synthetic")
    parser.add_argument("--category", default="all")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--weights", default="none", help="of pretrained parts: none (the same work) | auto | PATH")
    parser.add_argument("--steps", type=int, default=12, help="timed training steps")
    parser.add_argument("--images", type=int, default=64, help="pictures that are scored and trained on, at most")
    parser.add_argument("--rounds", type=int, default=3, help="of scoring")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(args)
    if min(options.steps, options.images, options.rounds) < 1:
        parser.error("--steps, --images and --rounds must be at least 1")
    return options


def main(args=None):
    options = parse(args)
    from vitlite.data import open_dataset, synthesize
    from vitlite.methods import method_class

    names = [name.strip() for name in options.methods.split(",") if name.strip()]
    for name in names:
        method_class(name)  # a name that does not exist is said before anything is measured
    with tempfile.TemporaryDirectory() as folder:
        if not options.data:
            options.data = str(synthesize(Path(folder) / "synthetic", good=0, defects=0))
        paths = [s.path for s in open_dataset(options.data, options.category).train][: options.images]
        print(f"{len(paths)} pictures of {Path(options.data).name}, preset {options.preset}; {surroundings(options)}\n")
        print(line("", "a training step", "of that", "scored, images/s", "", "", "decoded"))
        print(line("", "ms", "fetching", "from files", "from memory", "ratio", "alone"))
        for name in names:
            method, settings = untrained(name, options)
            step, fetching = training(method, settings, paths, Path(folder), options)
            files, memory, decoding = scoring(method, paths, options)
            figures = (f"{step * 1e3:.1f}", f"{fetching:.2%}", f"{files:.1f}", f"{memory:.1f}", f"{files / memory:.2f}")
            print(line(name, *figures, f"{decoding:.0f}"), flush=True)
    return 0


def line(*cells):
    return cells[0].ljust(8) + "".join(cell.rjust(17) for cell in cells[1:])


def surroundings(options):
    """What the speeds depend on."""
    from vitlite.bench._machine import machine

    about = machine("cuda" if options.device.startswith("cuda") else "cpu")
    return f"{about.get('gpu', about['processor'])}, {about['threads']} threads, torch {about['torch']}"


def untrained(name, options):
    """A method with random weights, which computes what a trained one does."""
    from vitlite.engine.settings import RunSettings, build_method, preset_config

    settings = RunSettings(name, options.data, options.category, options.preset, 0, preset_config(name, options.preset))
    return build_method(settings, weights=options.weights).to(options.device), settings


class TimedCache:
    """A feature cache that adds up how long it is waited for."""

    def __init__(self, cache):
        self.cache, self.seconds = cache, 0.0

    def __getitem__(self, indices):
        began = time.perf_counter()
        values = self.cache[indices]
        self.seconds += time.perf_counter() - began
        return values


def training(method, settings, paths, folder, options):
    """(seconds of a step of the longest stage as the trainer runs it, part of it that went into fetching)."""
    import torch

    from vitlite.engine.features import cache_features
    from vitlite.engine.train import Loop, make_optimizer

    device = torch.device(options.device)
    cache, indices, _ = cache_features(method, paths, folder, device)
    method.fit(cache[i : i + 64].to(device) for i in range(0, len(indices), 64))
    timed, c = TimedCache(cache), settings.config
    loop = Loop(method, settings, folder, timed, len(indices), device, True, None)
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


def scoring(method, paths, options):
    """Images a second: scored from files, scored from memory, decoded and resized without being scored."""
    import torch

    from vitlite.engine.features import batches, to_images
    from vitlite.images.loading import readable_batches

    device, size = torch.device(options.device), method.config.image_size
    method.eval()
    kept = [batch.pixels for batch in readable_batches(paths, size, 8)]

    def rate(of):
        began = time.perf_counter()
        for images in of:
            if images is not None:
                method.anomaly(images)[1].cpu()
        return len(paths) / (time.perf_counter() - began)

    ways = {
        "files": lambda: (found[1] for found in batches(paths, size, 8, device) if isinstance(found, tuple)),
        "memory": lambda: (to_images(pixels, device) for pixels in kept),
        "decoded": lambda: (None for _ in readable_batches(paths, size, 8)),
    }
    rates = {name: [] for name in ways}
    rate(ways["memory"]())
    for _ in range(options.rounds):
        for name, way in ways.items():
            rates[name].append(rate(way()))
    return tuple(statistics.median(values) for values in rates.values())


if __name__ == "__main__":
    main()
