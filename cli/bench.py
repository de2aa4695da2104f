"""vitlite bench."""

import logging

import click

from vitlite.cli._messages import LOGGER


@click.command(
    name="bench",
    epilog="Example: vitlite bench sivt",
    context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
)
@click.argument("name", metavar="[NAME]", required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def command(name: str | None, options: tuple[str, ...]) -> None:
    """Measure operators, metrics and whole methods.

    Without NAME, lists the benchmarks; `all` runs every one that needs no data set or run. OPTIONS come after NAME and
    are the benchmark's own; `vitlite bench NAME --help` lists them.
    """
    from vitlite.bench.__main__ import BENCHMARKS, LEFT_OUT, run
    from vitlite.errors import UserError

    if name is None:
        for known, about in BENCHMARKS.items():
            click.echo(f"{known:9} {about}")
        return
    if name != "all" and name not in BENCHMARKS:
        raise UserError(f"bench {name}: no such benchmark; there are {', '.join(BENCHMARKS)} and all")
    LOGGER.setLevel(logging.WARNING)  # a benchmark prints its own figures
    if options[:1] == ("--",):  # needed once, and still typed
        options = options[1:]
    names = [one for one in BENCHMARKS if one not in LEFT_OUT] if name == "all" else [name]
    codes = [run(one, list(options)) for one in names]
    raise SystemExit(max(codes))
