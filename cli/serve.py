"""``vitlite serve``: score images that come in over HTTP."""

import importlib.util

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note


@click.command(name="serve", epilog="Example: vitlite serve runs/bottle --port 8000")
@options.run
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0: one that is free."
)
@click.option(
    "--token-file",
    type=click.Path(),
    metavar="FILE",
    help="Requests have to bring the token in FILE.  [default: that in VITLITE_SERVE_TOKEN]",
)
@click.option("--good", metavar="DIR", help="The folder for images marked as good.  [default: RUN/marked_good]")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that score.")
@click.option("--queue", type=click.IntRange(min=0), default=16, show_default=True, help="Requests that may wait.")
@click.option(
    "--timeout", type=float, default=30.0, show_default=True, metavar="SECONDS", help="For an upload, and its answer."
)
@click.option(
    "--max-megabytes", type=float, default=32.0, show_default=True, metavar="N", help="Refuse larger uploads."
)
@click.option(
    "--max-megapixels", type=float, default=50.0, show_default=True, metavar="N", help="Refuse images with more pixels."
)
@click.option("--category", metavar="NAME", help="Use the thresholds of this category of the run.")
@options.sensitivity
@options.threshold
@options.pixel_threshold
@options.min_area
@options.device
@options.verbosity
def command(run: str, token_file: str | None, good: str | None, **others: object) -> None:
    """Score images that come in over HTTP, and show a page for people.

    RUN is a run's folder, or an .onnx or .xml file that `vitlite export` wrote. Such a file needs no torch. POST an
    image to /score for its verdict as JSON, to /overlay for its heat map as PNG. GET / is the page: drop images there,
    or use the camera. It shows map, verdict and history, moves the threshold, and marks images as good. The next
    `vitlite calibrate RUN --good DIR` takes those.

    The server listens on this machine alone. With another --host it needs a token, which every request has to bring:
    `Authorization: Bearer TOKEN`. If too many requests wait, the next one gets 503 and the time after which to send it
    again. A worker that dies is started anew, and its request is scored by the next one.

    The server ends by Ctrl-C or SIGTERM, after it has answered what is under way.
    """
    from vitlite.errors import UserError

    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"this needs {' and '.join(missing)}: pip install {' '.join(missing)}")

    from vitlite.serve.server import serve
    from vitlite.serve.settings import Settings, good_folder, token_from

    settings = Settings(run, token=token_from(token_file), good=good_folder(run, good), **others)  # type: ignore[arg-type]
    serve(settings, lambda address: note(f"{run} is served at {address} (Ctrl-C ends it)"))
