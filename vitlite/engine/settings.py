"""What a run is made of: method, data, categories, preset, seed and config; and config.toml, which holds them."""

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vitlite
from vitlite.data import synthesize
from vitlite.errors import UserError
from vitlite.files import make_folder, shown, write_text
from vitlite.methods import method_class
from vitlite.methods.config import NONE, TrainingConfig, change

if TYPE_CHECKING:
    from vitlite.methods.base import Method

CONFIG_FILE = "config.toml"
SYNTHETIC = "synthetic"  # the value of RunSettings.data, and the folder in the run, of the built-in data set
SEEDS = 2**63  # a seed is below it


@dataclass(frozen=True)
class RunSettings:
    """Everything needed to repeat a run."""

    method: str
    data: str  # folder, or "synthetic"
    category: str  # the categories trained on, with commas
    preset: str
    seed: int
    config: TrainingConfig  # the method's frozen dataclass


def new_settings(
    method: str,
    config: TrainingConfig,
    data: str | os.PathLike[str] | None = None,
    category: str | None = None,
    preset: str = "quick",
    seed: int = 0,
) -> RunSettings:
    """The settings of a new run. Without ``data`` it is the synthetic set, by default with all its categories."""
    if data is None:
        return RunSettings(method, SYNTHETIC, "all" if category is None else category, preset, seed, config)
    return RunSettings(method, os.path.realpath(data), category or "", preset, seed, config)


def preset_config(method: str, preset: str) -> TrainingConfig:
    """The config of a method's preset. ``UserError`` names the presets there are."""
    presets = method_class(method).presets
    if preset not in presets:
        raise UserError(f"`preset={preset}`: {method} has {', '.join(presets)}")
    return presets[preset]


def apply_overrides(config: TrainingConfig, overrides: Iterable[str]) -> TrainingConfig:
    """A config with ``KEY=VALUE`` texts applied. ``UserError`` names what is wrong with one."""
    changes = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"`overrides={item}`: write it as KEY=VALUE")
        changes[key.strip()] = text
    return change(config, changes)


def build_method(settings: RunSettings, weights: str | None = None) -> "Method":
    """The method's module for these settings; ``weights`` as in :class:`~vitlite.methods.base.Method`."""
    return method_class(settings.method)(settings.config, weights=weights)


def data_folder(settings: RunSettings, run: str | os.PathLike[str]) -> Path:
    """The folder of a run's data. Writes the synthetic set into the run if the run trains on it."""
    if settings.data != SYNTHETIC:
        return Path(settings.data)
    folder = Path(run) / SYNTHETIC
    if not folder.is_dir():
        make_folder(run)
        synthesize(folder, seed=settings.seed)
    return folder


def refuse_invalid_names(settings: RunSettings) -> None:
    """``UserError`` if a name is not valid UTF-8: config.toml could not hold it."""
    values = asdict(settings.config).values()
    for name in (settings.data, *settings.category.split(","), *(v for v in values if isinstance(v, str))):
        if shown(name) != name:
            raise UserError(f"{shown(name)}: this name is not valid UTF-8, as {CONFIG_FILE} must be; rename it")


def save_settings(run: str | os.PathLike[str], settings: RunSettings) -> None:
    """Write config.toml."""
    head = {k: v for k, v in asdict(settings).items() if k != "config"}
    values = {key: NONE if value is None else value for key, value in asdict(settings.config).items()}
    tables = {"run": {"vitlite": vitlite.__version__, **head}, "config": values}
    write_text(Path(run) / CONFIG_FILE, dumps(tables))


def load_settings(run: str | os.PathLike[str]) -> RunSettings:
    """Read a run's config.toml. ``UserError`` names the file and what is wrong with it."""
    path = Path(run) / CONFIG_FILE
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        head, values = dict(tables["run"]), dict(tables["config"])
    except FileNotFoundError:
        place = run if str(run) else "the run's name is empty"
        raise UserError(f"{place}: no {CONFIG_FILE} here; give the folder that `vitlite train` wrote") from None
    except NotADirectoryError:
        exported = "; an exported file can be given to predict alone" if Path(run).suffix == ".onnx" else ""
        raise UserError(f"{run}: is a file; give the folder that `vitlite train` wrote{exported}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give a run's folder") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as a run's configuration ({error})") from error
    try:
        return _from_tables(head, values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _from_tables(head: dict[str, Any], values: dict[str, Any]) -> RunSettings:
    """The two tables of config.toml as settings. Refuses what is missing, unknown or of another type."""
    head.pop("vitlite", None)
    kinds = {"method": str, "data": str, "category": str, "preset": str, "seed": int}
    wrong = sorted(kinds.keys() - head.keys()) or sorted(head.keys() - kinds.keys())
    if wrong:
        raise UserError(f"[run] is incomplete or has unknown keys ({', '.join(wrong)})")
    for key, kind in kinds.items():
        if type(head[key]) is not kind:
            raise UserError(f"{key} = {head[key]!r}: must be a {'whole number' if kind is int else 'string'}")
    if not 0 <= head["seed"] < SEEDS:
        raise UserError(f"seed = {head['seed']}: must be from 0 to 2^63 - 1")
    config = method_class(head["method"]).config_class()
    unknown = sorted(values.keys() - {field.name for field in fields(config)})
    if unknown:
        raise UserError(f"unknown option {', '.join(unknown)}; was it written by a newer vitlite?")
    return RunSettings(config=config(**values), **head)


def dumps(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """``{table: {key: value}}`` as TOML; values are strings, numbers, booleans or flat lists of them."""
    lines = []
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {_value(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, float):
        return repr(value)
    # JSON strings are TOML basic strings, except that TOML wants the DEL character escaped too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
