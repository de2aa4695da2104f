"""``python -m vitlite.bench NAME [OPTION...]``: run one benchmark."""

import importlib
import sys
from collections.abc import Sequence

from vitlite.errors import UserError

BENCHMARKS = {
    "ops": "the fused operators against eager torch, torch.compile and the usual libraries",
    "metrics": "the metrics against plain numpy and scikit-learn",
    "methods": "every method on given data: accuracy, size, speed and training time",
    "verdict": "false alarms and misses at the calibrated threshold, on given data sets",
    "edges": "how often good images have their highest value at the edge of the map",
    "drawn": "how well each map and filter finds defects drawn onto held-out good images",
    "predict": "milliseconds an image of a run: torch, ONNX Runtime, OpenVINO",
    "sivt": "training and scoring speed of SIVT against a plain eager one",
    "pipeline": "whether images come as fast as the methods take them",
    "start": "make the weights that the transformer of SIVT begins with",
    "memory": "peak memory of predict and eval over many images",
}
LEFT_OUT = ("verdict", "edges", "drawn", "predict", "start")  # of `bench all`: they need data, or hours


def run(name: str, args: Sequence[str]) -> int:
    """Call ``main(args)`` of a benchmark; returns its exit code."""
    return importlib.import_module(f"vitlite.bench.{name}").main(args) or 0


def refused(error: UserError) -> int:
    """Print what was wrong, as the command line does; the exit code."""
    print(f"vitlite: {error}", file=sys.stderr)
    return 2


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        lines = (f"  {name:9} {about}" for name, about in BENCHMARKS.items())
        sys.exit("usage: python -m vitlite.bench NAME [OPTION...]\n" + "\n".join(lines))
    try:
        sys.exit(run(sys.argv[1], sys.argv[2:]))
    except UserError as error:
        sys.exit(refused(error))


if __name__ == "__main__":
    main()
