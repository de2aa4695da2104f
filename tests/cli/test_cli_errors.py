"""What the library calls arguments and settings, the command line calls options."""

import click
import pytest
from commands import outcome, refused

from vitlite.cli._errors import in_one_line, in_options
from vitlite.errors import UserError


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--out")
@click.option("--target-fpr")
@click.option("-q", "--quiet", is_flag=True)
@click.option("--format", "kind")
@click.option("--set", "overrides", multiple=True)
def command(**options):
    """A command with each kind of parameter."""


# A message, as callers from Python read it, and as the command line prints it.
MESSAGES = """
`out=a b`: is a folder          | out=a b: is a folder        | --out a b: is a folder
choose another `out`            | choose another out          | choose another --out
`target_fpr=2`: too large       | target_fpr=2: too large     | --target-fpr 2: too large
use `quiet=True`                | use quiet=True              | use --quiet
`kind=exe`: unknown             | kind=exe: unknown           | --format exe: unknown
`overrides=lr`: no value        | overrides=lr: no value      | --set lr: no value
`lr=-1`: must be above 0        | lr=-1: must be above 0      | --set lr=-1: must be above 0
`weights=`: is empty            | weights=: is empty          | --set weights=: is empty
a smaller `lr`                  | a smaller lr                | a smaller --set lr
`run=x`: no run, other `run`    | run=x: no run, other run    | x: no run, other RUN
see `vitlite doctor`            | see `vitlite doctor`        | see `vitlite doctor`
"""


@pytest.mark.parametrize("case", MESSAGES.strip().splitlines())
def test_arguments_become_options(case):
    message, plain, options = (part.strip() for part in case.split("|"))
    error = UserError(message)
    assert str(error) == plain
    assert in_options(error.marked, command) == options


def test_an_error_is_one_line():
    assert str(UserError("two\n lines")) == "two lines"


def test_without_settings_a_name_stays():
    assert in_options("`lr=-1`: must be above 0", click.Command("eval")) == "lr=-1: must be above 0"


def test_commands_of_a_group():
    group = click.Group("data", commands={"synth": click.Command("synth", params=[click.Option(["--size"])])})
    assert in_options("`size=5`: too small", group) == "--size 5: too small"


def test_an_error_of_a_command_is_spelled_for_it(monkeypatch):
    def refuse(*args):
        raise UserError("`method=x`: unknown; `lr=0`: must be above 0")

    monkeypatch.setattr("vitlite.engine.settings.preset_config", refuse)
    code, _, err = outcome("train", "--method", "x")
    assert (code, err) == (2, "vitlite: --method x: unknown; --set lr=0: must be above 0\n")


@pytest.mark.parametrize("error", [MemoryError("no room for 9 GiB"), RuntimeError("CUDA out of memory")])
@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("predict", "run", "image.png", "--out", "out"), "; --no-overlays needs less"),
        (
            ("train", "--method", "x"),
            "; a smaller --set image_size, --set batch_size or network needs less; so does a smaller --tile",
        ),
        (("eval", "run"), "; --streaming needs less"),
        (("eval-maps", "maps", "--data", "set"), "; --streaming needs less"),
        (("report", "run"), ""),
    ],
)
def test_what_needs_less_memory_is_an_option_of_the_command(monkeypatch, error, arguments, advice):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr("vitlite.api.load", fail)
    monkeypatch.setattr("vitlite.engine.settings.preset_config", fail)
    monkeypatch.setattr("vitlite.engine.detector.Detector", fail)
    monkeypatch.setattr("vitlite.engine.evaluate.open_dataset", fail)
    assert outcome(*arguments) == (2, "", f"vitlite: out of memory ({error}){advice}\n")


def test_an_instruction_set_that_is_none_is_one_line():
    found = in_one_line(RuntimeError("set, isa.cpp:51, VITLITE_ISA=sse: is not one of avx2\nException raised from set"))
    assert found == "VITLITE_ISA=sse: is not one of avx2"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train", ""), "an argument"),
        (("train", "parts", "--out", ""), "--out"),
        (("predict", "run", "images", "--out="), "--out"),
        (("data", "check", ""), "an argument"),
    ],
)
def test_an_empty_word_is_not_as_if_left_out(arguments, named):
    """A variable of a script without a value: a training would take the built-in images, or the usual folder."""
    refused(*arguments, says=f"vitlite: {named}: is empty; give a value, or leave it out")


def test_a_setting_may_be_empty():
    """Of a list, nothing; so is what this method does not have."""
    refused("train", "--set=nothing=", says="--set nothing: no such setting")
