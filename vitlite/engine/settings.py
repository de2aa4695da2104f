"""What a run is made of: method, data, seed and config, from presets and ``--set``, to config.toml and back."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import vitlite
from vitlite.engine import toml
from vitlite.errors import UserError
from vitlite.files import write_text
from vitlite.methods import method_class

CONFIG_FILE = "config.toml"


@dataclass(frozen=True)
class RunSettings:
    """Everything needed to repeat a run."""

    method: str
    data: str  # folder, or "synthetic"
    category: str  # comma list of the categories trained on
    preset: str
    seed: int
    config: object  # the method's frozen dataclass


def preset_config(method, preset):
    """The config of a method's preset. ``UserError`` names the presets there are."""
    presets = method_class(method).presets
    if preset not in presets:
        raise UserError(f"--preset {preset}: {method} has {', '.join(presets)}")
    return presets[preset]


def apply_overrides(config, overrides):
    """A config with ``KEY=VALUE`` strings applied; values take the type of the field's default."""
    known = {f.name: getattr(config, f.name) for f in fields(config)}
    changes = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set {item}: write it as KEY=VALUE")
        if key not in known:
            raise UserError(f"--set {key}: no such option; there are {', '.join(known)}")
        changes[key] = _parse(key, text.strip(), known[key])
    if "epochs" in changes:
        changes.setdefault("steps", 0)  # whoever says how many epochs means it
    return _checked(replace(config, **changes))


def _parse(key, text, default):
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(int(part) for part in text.replace(" ", "").split(",") if part)
        return type(default)(text)
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number", tuple: "numbers with commas"}
        raise UserError(f"--set {key}={text}: must be {kind[type(default)]}") from None


def _checked(config):
    """Refuses numbers that no training can run with; a method's own check comes when it is built."""
    least_values = {"epochs": 1, "steps": 0, "batch_size": 1, "image_size": 8, "weight_decay": 0, "warmup_epochs": 0}
    for key, least in least_values.items():
        if not getattr(config, key) >= least:
            raise UserError(f"--set {key}={getattr(config, key)}: must be at least {least}")
    if not 0 < config.lr < float("inf"):
        raise UserError(f"--set lr={config.lr}: must be above 0")
    if not 0 <= config.holdout < 1:
        raise UserError(f"--set holdout={config.holdout}: must be at least 0 and below 1")
    if config.schedule not in ("constant", "cosine"):
        raise UserError(f"--set schedule={config.schedule}: not one of constant, cosine")
    if config.precision not in ("float32", "bfloat16", "auto"):
        raise UserError(f"--set precision={config.precision}: not one of float32, bfloat16, auto")
    return config


def build_method(settings, weights=None):
    """The method's module for these settings; a config value that it refuses is a ``UserError``."""
    try:
        return method_class(settings.method)(settings.config, weights=weights)
    except ValueError as error:
        raise UserError(f"--set {error}") from error


def save_settings(run, settings):
    """Write config.toml."""
    head = {k: v for k, v in asdict(settings).items() if k != "config"}
    tables = {"run": {"vitlite": vitlite.__version__, **head}, "config": asdict(settings.config)}
    write_text(Path(run) / CONFIG_FILE, toml.dumps(tables))


def load_settings(run):
    """Read a run's config.toml. ``UserError`` names the file and what is wrong with it."""
    path = Path(run) / CONFIG_FILE
    try:
        tables = toml.loads(path.read_text(encoding="utf-8"))
        head, values = dict(tables["run"]), dict(tables["config"])
        head.pop("vitlite", None)
    except FileNotFoundError:
        raise UserError(f"{run}: no {CONFIG_FILE} here; give the folder that `vitlite train --out` wrote") from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as a run's configuration ({error})") from error
    defaults = method_class(head.get("method", "")).Config()
    unknown = sorted(values.keys() - asdict(defaults).keys())
    if unknown:
        raise UserError(f"{path}: unknown option {', '.join(unknown)}; was it written by a newer vitlite?")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return RunSettings(config=_checked(replace(defaults, **values)), **head)
    except TypeError as error:
        raise UserError(f"{path}: [run] is incomplete or has unknown keys ({error})") from error
