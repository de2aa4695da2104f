"""vitlite export."""

import click

from vitlite.cli._messages import note, verbosity


@click.command(name="export", epilog="Example: vitlite export runs/bottle --format onnx --out bottle.onnx")
@click.argument("run", metavar="RUN")
@click.option("--format", "kind", type=click.Choice(["onnx", "pt2"]), default="onnx", show_default=True)
@click.option("--out", metavar="FILE", help="The file to write.  [default: model.onnx or model.pt2 in RUN]")
@click.option(
    "--check",
    metavar="IMAGE",
    multiple=True,
    help="Picture, folder or pattern to compare on; repeatable.  [default: a few of the training data]",
)
@verbosity
def command(run, kind, out, check):
    """Write a trained detector as one file for other runtimes.

    The file takes any number of 8-bit RGB pictures of the detector's size, shape (batch, size, size, 3), and gives
    maps and scores: preprocessing, model, smoothing and score are inside, thresholds and everything else about it in
    its metadata. It is run on real pictures before it is written, and refused if its scores differ from the run's by
    more than 1e-4 relative. An .onnx file is scored by `vitlite predict FILE.onnx IMAGE...`, without torch.
    """
    from vitlite.export.export import export

    written = export(run, kind, out, check=check)
    note(f"written: {written} ({written.stat().st_size / 2**20:.1f} MiB)")
