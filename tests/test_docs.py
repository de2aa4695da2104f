"""Every example in the README, on the pages and in the commands' help runs, with a detector that trains in a second.

The page on data layouts has a test of its own in tests/data, the pages on how to add something have test_adding.py.
"""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
from tiny_settings import TINY

from vitlite.cli import COMMANDS, group, main

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
# Pages with tests of their own: in tests/data and in test_adding.py.
PAGES = [page for page in PAGES if page != "docs/data.md" and "adding" not in page]
# Programs whose examples are not run here: `make` and `.ci/run` run these tests, the two others have tests of theirs.
OTHERS = ("make", "pip", ".ci/run", "torchrun", "sh", "python")


def blocks(page):
    """(language, text) of the fenced blocks of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with the data sets and images that the examples name."""
    from vitlite.data import synthesize

    folder = tmp_path_factory.mktemp("docs")
    small = {"size": 64, "categories": ("weave",), "train": 10, "good": 3, "defects": 1}
    made = synthesize(folder / "made", seed=1, **small) / "weave"
    others = synthesize(folder / "others", seed=2, **small) / "weave"
    for name in ("parts", "mvtec/bottle", "labelled"):
        shutil.copytree(made, folder / name)
    for name in ("new", "newer_good", "photos"):
        shutil.copytree(others / "train/good", folder / name)
    image = next((made / "test/good").iterdir())
    for name in ("a.png", "b.png", "new.png"):
        shutil.copy(image, folder / name)
    return folder


@pytest.fixture(autouse=True)
def tiny(shelf, monkeypatch):
    """In that folder, with a preset that trains in a moment."""
    from vitlite.methods.sivt import SIVT

    monkeypatch.chdir(shelf)
    monkeypatch.setitem(SIVT.presets, "quick", replace(SIVT.presets["quick"], steps=0, **TINY))


def run(line):
    """Run an example of a command; 1 is the exit code where defects were found."""
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):  # variables of the environment
        del words[0]
    if not words or words[0] in OTHERS:
        return
    assert words[0] == "vitlite", line
    if words[1] in ("train", "predict") and not {"--resume", "--overwrite"} & {*words} and "--out" in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    with pytest.raises(SystemExit) as stop:
        main(words[1:])
    assert stop.value.code in ((0, 1) if "--fail-on-defect" in words else (0,)), line


LONG = {"docs/export.md", "docs/embedding.md"}  # what they export and compile takes long


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page in LONG)) for page in PAGES if blocks(page)]
)
def test_a_page(page, capsys):
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page, "exec"), {})
        elif language in ("", "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                run(line)
        elif language == "console":  # what is typed stands after "$", and what is printed below it
            for line in re.findall(r"^\$ (.*)", text, re.MULTILINE):
                run(line)


def commands(command, path=()):
    """(names, command) of every command and command of a command."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


EVERY = dict(commands(group))


def example(path):
    """The example in a command's help."""
    command = EVERY[path]
    text = " ".join(f"{command.help or ''}\n{command.epilog or ''}".split())
    found = re.search(r"Example: (vitlite .*)$", text)
    assert found, f"vitlite {' '.join(path)} --help has no example at its end"
    return found[1]


def test_every_command_is_listed():
    assert {path[0] for path in EVERY if path} == set(COMMANDS)


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_has_an_example_of_its_command(path):
    assert tuple(example(path).split()[1 : 1 + len(path)]) == path or isinstance(EVERY[path], click.Group)


def test_the_examples_in_the_help_run(capsys):
    """In the order of `vitlite --help`, because later ones use the run of the first; what makes data comes first."""
    lines = list(dict.fromkeys(example(path) for path in EVERY))
    for line in sorted(lines, key=lambda line: "data synth" not in line):
        if "bench" in line.split():  # minutes long; its tests are in tests/bench
            from vitlite.bench.__main__ import BENCHMARKS

            assert line.split()[2] in BENCHMARKS
            continue
        if line.startswith("vitlite serve"):  # runs until a signal ends it; its tests are in tests/serve
            continue
        if line.startswith("vitlite eval-maps maps"):
            run("vitlite eval runs/bottle --maps")
            shutil.copytree("runs/bottle/maps", "maps")
        run(line)


@pytest.mark.slow
def test_the_site_refuses_a_broken_link_and_an_undocumented_name(tmp_path):
    pytest.importorskip("mkdocs")
    for name in ("vitlite", "kernels", "cli", "bench", "docs", ".ci"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("mkdocs.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    metrics = tmp_path / "vitlite/metrics/exact.py"
    metrics.write_text(re.sub(r'(def f1_max\(.*?)""".*?"""', r"\1pass", metrics.read_text(), count=1, flags=re.DOTALL))
    (tmp_path / "docs/index.md").write_text("# vitlite\n\n[nowhere](nowhere.md) [no part](commands.md#none)\n")
    build = [sys.executable, "-m", "mkdocs", "build"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "'nowhere.md'" in said
    assert "'commands.md#none'" in said
    assert "vitlite.metrics.f1_max: is public, and has no docstring" in said
