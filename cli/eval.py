"""vitlite eval."""

from pathlib import Path

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note


@click.command(name="eval", epilog="Example: vitlite eval runs/bottle --data mvtec --category bottle")
@options.run
@options.data
@options.category
@click.option("--maps", is_flag=True, help="Write the anomaly maps into RUN/maps, for `vitlite eval-maps` and others.")
@options.device
@options.deterministic
@options.verbosity
def command(run: str, data: str | None, category: str | None, maps: bool, device: str, deterministic: bool) -> None:
    """Score a trained detector on labelled test images.

    Prints image and pixel AUROC, average precision and best F1, and AUPRO to 0.3 and 0.05, at the original
    resolution; writes results.json and results.csv into the run's folder. Needs test/ and ground_truth/ only. Maps are
    32-bit float TIFFs at the original size, RUN/maps/<category>/test/<defect>/<stem>.tiff.
    """
    from vitlite.engine.detector import Detector
    from vitlite.engine.distributed import deterministic as only_deterministic
    from vitlite.engine.evaluate import evaluate, results_csv
    from vitlite.engine.results import MAPS_FOLDER
    from vitlite.files import require_writable, write_json, write_text

    folder = Path(run) / MAPS_FOLDER if maps else None
    with only_deterministic(deterministic):
        detector = Detector(run, device)
        require_writable(run)
        results = evaluate(detector, data=data, category=category, maps=folder)
    write_json(Path(run) / "results.json", results)
    write_text(Path(run) / "results.csv", results_csv(results))
    click.echo(table(results))
    written = [Path(run) / "results.json", Path(run) / "results.csv", *([folder] if maps else [])]
    note(f"written: {', '.join(map(str, written))}")


def table(results):
    """The results as aligned text: a line per category, its kinds of defects below it, the mean last."""
    from vitlite.engine.evaluate import KEYS
    from vitlite.files import shown

    rows = [("", "images", *(k.replace("_", " ") for k in KEYS))]

    def add(name, images, values):
        rows.append((shown(name), str(images), *("-" if values[k] is None else f"{values[k]:.4f}" for k in KEYS)))

    for name, result in results["categories"].items():
        add(name, result["good"] + result["defective"], result)
        for kind, values in result["defects"].items():
            add(f"  {kind}", values["images"], values)
    if len(results["categories"]) > 1:
        add("mean", sum(r["good"] + r["defective"] for r in results["categories"].values()), results["mean"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        lines.append("  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]))
    lines += loco_lines(results)
    return "\n".join(lines)


def loco_lines(results):
    """A note on MVTec LOCO's own image AUROC, where a category has it; none elsewhere."""
    from vitlite.engine.evaluate import MEAN_OF_KINDS
    from vitlite.files import shown

    every = [*results["categories"].items(), *([("mean", results["mean"])] if len(results["categories"]) > 1 else [])]
    own = [f"{shown(name)} {values[MEAN_OF_KINDS]:.4f}" for name, values in every if MEAN_OF_KINDS in values]
    return [f"image auroc as LOCO has it, the mean of its two kinds: {', '.join(own)}"] if own else []
