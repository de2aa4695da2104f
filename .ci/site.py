"""Hooks of the documentation site (mkdocs.yml): what the reference is read from, and whether it is whole.

A public name without a docstring is not rendered, and so is not in the site's inventory: a warning, which `strict`
makes an error.
"""

import importlib
import inspect
import logging
import runpy
import zlib
from collections.abc import Iterator
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vitlite", "vitlite.data", "vitlite.images", "vitlite.kernels", "vitlite.metrics")
log = logging.getLogger("mkdocs.hooks.reference")


def public_names() -> Iterator[tuple[str, str]]:
    """(name, the same by the module that defines it) of all that a package offers, and of its classes' methods."""
    for package in PACKAGES:
        for name in importlib.import_module(package).__all__:
            value = getattr(importlib.import_module(package), name)
            home = f"{getattr(value, '__module__', package)}.{name}"
            yield f"{package}.{name}", home
            if inspect.isclass(value):
                own = {key for kind in value.__mro__ if kind.__module__.startswith("vitlite") for key in vars(kind)}
                described = {key for key in own if callable(getattr(value, key, None)) or is_property(value, key)}
                keys = [key for key in sorted(described) if not key.startswith("_")]
                yield from ((f"{package}.{name}.{key}", f"{home}.{key}") for key in keys)


def is_property(value: type, key: str) -> bool:
    return isinstance(inspect.getattr_static(value, key), property)


def rendered(site: Path) -> set[str]:
    """The names in the site's inventory."""
    _, _, packed = (site / "objects.inv").read_bytes().partition(b"zlib.\n")
    return {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}


def on_startup(**_: object) -> None:
    """Before mkdocstrings looks for the folder that it reads."""
    runpy.run_path(str(ROOT / ".ci/types"))["make_view"]()


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """The page on commands ends with the help of each of them."""
    if page.file.src_uri != "commands.md":
        return markdown
    return markdown + "\n## Options\n" + "".join(f"\n### {name}\n\n```text\n{text}\n```\n" for name, text in helps())


def helps() -> Iterator[tuple[str, str]]:
    """(command, what its --help prints) of every command and command of a command."""

    def walk(command: click.Command, parent: click.Context | None, name: str) -> Iterator[tuple[str, str]]:
        context = click.Context(command, parent=parent, info_name=name, max_content_width=100, terminal_width=100)
        if parent:
            yield context.command_path, command.get_help(context)
        if isinstance(command, click.Group):
            for key in command.list_commands(context):
                yield from walk(command.get_command(context, key), context, key)

    return walk(importlib.import_module("vitlite.cli").group, None, "vitlite")


def on_post_build(config: MkDocsConfig) -> None:
    found = rendered(Path(config.site_dir))
    for name, home in public_names():
        if name not in found and home not in found:
            log.warning("%s: is public, and has no docstring or no place on a page of the reference", name)
