"""vitlite export."""

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note


@click.command(name="export", epilog="Example: vitlite export runs/bottle --format onnx --out bottle.onnx")
@options.run
@click.option("--format", "kind", type=click.Choice(["onnx", "pt2", "openvino"]), default="onnx", show_default=True)
@click.option(
    "--out",
    metavar="FILE",
    help="The file to write.  [default: model.onnx, model.pt2, model.xml or model-int8.xml in RUN]",
)
@click.option(
    "--check",
    metavar="IMAGE",
    multiple=True,
    help="An image, folder or pattern to compare on; repeatable.  [default: 32 images of the run's data]",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="int8: matrix products of the transformer and of the bank of sivt in 8-bit integers, with --format openvino. "
    "Faster on processors that multiply them; scores may differ by 1 %, and the thresholds are set for it.",
)
@options.verbosity
def command(run: str, kind: str, out: str | None, check: tuple[str, ...], precision: str) -> None:
    """Write a trained detector as one file for other runtimes; for OpenVINO as two, .xml and .bin.

    The file takes any number of 8-bit RGB images of the detector's size, shape (batch, height, width, 3), and gives
    maps and scores. Preprocessing, model, smoothing and score are inside; its metadata hold the thresholds and
    everything else. It scores images before it is written, and is refused if a score or map is not finite, or differs
    from the run's by more than 1e-4 relative (int8: scores by 5e-3, maps by 5e-2, also of drawn defects). An .onnx or
    .xml file is scored by `vitlite predict FILE IMAGE...`, without torch. OpenVINO computes in bfloat16 if another
    program does not tell it otherwise: see docs/export.md.
    """
    from vitlite.export.export import export
    from vitlite.export.openvino_detector import weights_file

    written = export(run, kind, out, check=check, precision=precision)
    files = [written, *([weights_file(written)] if kind == "openvino" else ())]
    size = sum(file.stat().st_size for file in files) / 2**20
    note(f"written: {' and '.join(map(str, files))} ({size:.1f} MiB)")
