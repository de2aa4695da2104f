"""What a run is made of: method, data, seed and config, from presets and ``--set``, to config.toml and back."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import vitlite
from vitlite.data import synthesize
from vitlite.errors import UserError
from vitlite.files import make_folder, shown, write_text
from vitlite.methods import method_class
from vitlite.methods.config import NONE, TrainingConfig, change

SYNTHETIC = "synthetic"  # the value of RunSettings.data, and the folder in the run, of the built-in data set
CONFIG_FILE = "config.toml"


@dataclass(frozen=True)
class RunSettings:
    """Everything needed to repeat a run."""

    method: str
    data: str  # folder, or "synthetic"
    category: str  # comma list of the categories trained on
    preset: str
    seed: int
    config: TrainingConfig  # the method's frozen dataclass


def preset_config(method, preset):
    """The config of a method's preset. ``UserError`` names the presets there are."""
    presets = method_class(method).presets
    if preset not in presets:
        raise UserError(f"`preset={preset}`: {method} has {', '.join(presets)}")
    return presets[preset]


def apply_overrides(config, overrides):
    """A config with ``KEY=VALUE`` strings applied. ``UserError`` names a setting that cannot be."""
    changes = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"`overrides={item}`: write it as KEY=VALUE")
        changes[key.strip()] = text
    return change(config, changes)


def build_method(settings, weights=None):
    """The method's module for these settings."""
    return method_class(settings.method)(settings.config, weights=weights)


def refuse_invalid_names(settings):
    """``UserError`` where a folder, category or file has a name that config.toml, which is UTF-8, cannot hold."""
    values = asdict(settings.config).values()
    for name in (settings.data, *settings.category.split(","), *(v for v in values if isinstance(v, str))):
        if shown(name) != name:
            raise UserError(f"{shown(name)}: this name is not valid UTF-8, as {CONFIG_FILE} must be; rename it")


def save_settings(run, settings):
    """Write config.toml."""
    head = {k: v for k, v in asdict(settings).items() if k != "config"}
    values = {key: NONE if value is None else value for key, value in asdict(settings.config).items()}
    tables = {"run": {"vitlite": vitlite.__version__, **head}, "config": values}
    write_text(Path(run) / CONFIG_FILE, dumps(tables))


def load_settings(run):
    """Read a run's config.toml. ``UserError`` names the file and what is wrong with it."""
    path = Path(run) / CONFIG_FILE
    try:
        tables = loads(path.read_text(encoding="utf-8"))
        head, values = dict(tables["run"]), dict(tables["config"])
        head.pop("vitlite", None)
    except FileNotFoundError:
        where = run if str(run) else "the run's name is empty"
        raise UserError(f"{where}: no {CONFIG_FILE} here; give the folder that `vitlite train --out` wrote") from None
    except NotADirectoryError:
        exported = "; an exported file can be given to predict alone" if Path(run).suffix == ".onnx" else ""
        raise UserError(f"{run}: is a file; give the folder that `vitlite train --out` wrote{exported}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give a run's folder") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as a run's configuration ({error})") from error
    try:
        return _from_tables(head, values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _from_tables(head, values):
    """RunSettings from the two tables of config.toml; whatever is missing, unknown or of another type is refused."""
    kinds = {f.name: f.type for f in fields(RunSettings) if f.name != "config"}
    config = method_class(head["method"]).Config if isinstance(head.get("method"), str) else None
    known = {f.name for f in fields(config)} if config else values.keys()
    unknown = sorted(values.keys() - known)
    if unknown:
        raise UserError(f"unknown option {', '.join(unknown)}; was it written by a newer vitlite?")
    missing, extra = sorted(kinds.keys() - head.keys()), sorted(head.keys() - kinds.keys())
    if missing or extra:
        raise UserError(f"[run] is incomplete or has unknown keys ({', '.join(missing or extra)})")
    for key, kind in kinds.items():
        if type(head[key]) is not kind:
            raise UserError(f"{key} = {head[key]!r}: must be a {'whole number' if kind is int else 'string'}")
    if not 0 <= head["seed"] < 2**63:
        raise UserError(f"seed = {head['seed']}: must be from 0 to 2^63 - 1")
    return RunSettings(config=config(**values), **head)


try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = None


def dumps(tables):
    """``{table: {key: value}}`` as TOML; values are strings, numbers, booleans or flat lists of them."""
    lines = []
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {_value(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def _value(value):
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, float):
        return repr(value) if "inf" in repr(value) or "nan" in repr(value) else _float(value)
    # JSON strings are TOML basic strings, except that TOML wants the DEL character escaped too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _float(value):
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"


def loads(text):
    """The tables of a file that :func:`dumps` wrote (any TOML where Python has a reader). Raises ``ValueError``."""
    return tomllib.loads(text) if tomllib else loads_plain(text)


def loads_plain(text):
    """Reads what :func:`dumps` writes, line by line; anything else is a ``ValueError``."""
    tables, table = {}, None
    # Not splitlines(): it also breaks at characters such as U+2028, which may stand within a string.
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]") and "=" not in line:
            table = tables.setdefault(line[1:-1], {})
            continue
        key, equals, value = line.partition("=")
        if table is None or not equals:
            raise ValueError(f"line {number}: expected `key = value` inside a [table]")
        table[key.strip()] = json.loads(value)
    return tables


def data_folder(settings, run):
    """The folder that a run's data lies in; makes the synthetic set if that is what it trains on."""
    if settings.data != SYNTHETIC:
        return Path(settings.data)
    folder = Path(run) / SYNTHETIC
    if not folder.is_dir():
        make_folder(run)
        synthesize(folder, seed=settings.seed)
    return folder
