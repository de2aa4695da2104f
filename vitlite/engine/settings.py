"""What a run is made of: method, data, categories, preset, seed and config; and config.toml, which holds them."""

import json
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vitlite
from vitlite.data import synthesize
from vitlite.data.layouts import PLAIN, layout_of
from vitlite.data.listing import entries
from vitlite.errors import UserError
from vitlite.files import StrPath, make_folder, shown, write_text
from vitlite.images.region_files import AUTO, FOLDER, load_regions, read_regions
from vitlite.images.regions import Regions
from vitlite.methods import method_class
from vitlite.methods.config import TrainingConfig, change
from vitlite.methods.kinds import NONE

if TYPE_CHECKING:
    from vitlite.methods.base import Method

CONFIG_FILE = "config.toml"
SYNTHETIC = "synthetic"  # the value of RunSettings.data, and the folder in the run, of the built-in data set
OPTIONAL = ("init_from", "roi", "ignore", "regions", "chosen", "added")  # of config.toml's [run]: left out if empty
SEEDS = 2**63  # a seed is below it
# Settings of methods that say how the network is trained and how its map is read, and not what the network is. Those
# of the losses (..._weight) and of ISSTAD's corruption (corrupt_...) belong to them.
OF_TRAINING = (
    frozenset(("weights", "pretrained", "checkpoint", "augment", "map", "sigma", "noise", "windows", "stride"))
    | frozenset(("mae_epochs", "mae_lr", "mae_batch_size", "freeze_encoder"))
    | frozenset(("density_epochs", "likelihood_trains", "ssim_window"))
    | frozenset(("bank", "sampling", "neighbours"))  # the bank is filled anew
    | frozenset(("align", "dropout", "mining", "mining_factor", "mining_steps"))
)


@dataclass(frozen=True)
class RunSettings:
    """Everything needed to repeat a run."""

    method: str
    data: str  # folder, or "synthetic"
    category: str  # the categories trained on, with commas
    preset: str
    seed: int
    config: TrainingConfig  # the method's frozen dataclass
    init_from: str = ""  # the run whose weights it begins with; empty: none
    roi: str = ""  # where to look: a file, a folder of files by category, or "auto"; empty: everywhere
    ignore: str = ""  # where not to look
    regions: str = ""  # the digest of what is in the run's folder of regions; of a new run: in that of ``init_from``
    chosen: str = ""  # why training chose ``score`` and ``places``; empty: they were given
    added: tuple[str, ...] = ()  # where an updated run has more good images from, besides ``data``


def new_settings(
    method: str,
    config: TrainingConfig,
    data: StrPath | None = None,
    category: str | None = None,
    preset: str = "quick",
    seed: int = 0,
    init_from: str = "",
    roi: StrPath | None = None,
    ignore: StrPath | None = None,
) -> RunSettings:
    """The settings of a new run. Without ``data`` it is the synthetic set, by default with all its categories."""
    where = AUTO if roi == AUTO else os.path.realpath(roi) if roi else "", os.path.realpath(ignore) if ignore else ""
    place = SYNTHETIC if data is None else os.path.realpath(data)
    categories = category or "" if data is not None else "all" if category is None else category
    return RunSettings(method, place, categories, preset, seed, config, init_from, *where)


def settings_from(
    init_from: StrPath,
    method: str | None,
    data: StrPath | None,
    category: str | None,
    preset: str | None,
    seed: int,
    changes: Mapping[str, object],
    roi: StrPath | None = None,
    ignore: StrPath | None = None,
) -> RunSettings:
    """The settings of a new run that begins with the weights of another, and with its settings unless others are given.

    ``UserError`` if there is no such run, it is of another method or network, or no data is given for it.
    """
    origin = load_settings(init_from)
    if method not in (None, origin.method):
        raise UserError(f"`method={method}`: {shown(init_from)} is a run of {origin.method}; leave it out")
    if data is None and origin.data != SYNTHETIC:
        raise UserError("`data`: give the good images to train on, together with `init_from`")
    config = origin.config if preset is None else preset_config(origin.method, preset)
    place = os.path.realpath(init_from)
    settings = new_settings(
        origin.method, change(config, changes), data, category, preset or origin.preset, seed, place, roi, ignore
    )
    if roi is None and ignore is None:
        settings = with_regions_of(settings, origin)
    refuse_other_network(settings)
    return settings


def with_regions_of(settings: RunSettings, origin: RunSettings) -> RunSettings:
    """The settings of a run that looks where ``origin`` does, the run of ``init_from``. ``UserError`` for damage."""
    regions = regions_of(origin, settings.init_from)
    return replace(settings, roi=origin.roi, ignore=origin.ignore, regions="" if regions is None else regions.digest())


def resumed_settings(run: StrPath, changes: Mapping[str, object], data: StrPath | None = None) -> RunSettings:
    """The settings of a run that goes on: those of its config.toml, but for the number of steps or epochs, or the data.

    ``UserError`` names any other setting, and a run that is not there.
    """
    for key in changes:
        if key not in ("steps", "epochs"):
            raise UserError(f"`{key}`: not together with `resume=True`, with which only `steps` or `epochs` can change")
    if len(changes) > 1:
        raise UserError("`steps`: not together with `epochs`; give one of them")
    settings = load_settings(run)
    place = settings.data if data is None else os.path.realpath(data)
    return replace(settings, data=place, config=change(settings.config, changes))


def refuse_other_network(settings: RunSettings, argument: str = "init_from") -> None:
    """``UserError`` if the weights of ``init_from`` belong to another network than that of the settings.

    ``argument`` is what the caller was given that run as.
    """
    origin = load_settings(settings.init_from)
    if origin.method != settings.method:
        raise UserError(f"`{argument}={settings.init_from}`: is a run of {origin.method}, not of {settings.method}")
    trained = {field.name for field in fields(TrainingConfig)} - {"image_size"}
    for key, value in vars(settings.config).items():
        free = key in trained or key in OF_TRAINING or key.startswith("corrupt_") or key.endswith("_weight")
        trained_with = getattr(origin.config, key)
        if not free and trained_with != value:
            raise UserError(
                f"`{key}={_plain(value)}`: `{argument}={settings.init_from}` was trained with {_plain(trained_with)}; "
                "give the same"
            )


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def preset_config(method: str, preset: str) -> TrainingConfig:
    """The config of a method's preset. ``UserError`` names the presets there are."""
    presets = method_class(method).presets
    if preset not in presets:
        raise UserError(f"`preset={preset}`: {method} has no such preset; choose from {', '.join(presets)}")
    return presets[preset]


def apply_overrides(config: TrainingConfig, overrides: Iterable[str]) -> TrainingConfig:
    """A config with ``KEY=VALUE`` texts applied. ``UserError`` names what is wrong with one."""
    return change(config, parse_overrides(overrides))


def parse_overrides(overrides: Iterable[str]) -> dict[str, object]:
    """``KEY=VALUE`` texts by key. ``UserError`` names one that is not written so."""
    changes: dict[str, object] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"`overrides={item}`: write it as KEY=VALUE")
        changes[key.strip()] = text
    return changes


def build_method(settings: RunSettings, weights: str | None = None) -> "Method":
    """The method's module for these settings; ``weights`` as in :class:`~vitlite.methods.base.Method`.

    ``UserError`` if it cannot fit into memory.
    """
    from vitlite.methods.footprint import refuse_too_deep  # needs torch

    refuse_too_deep(settings.config, trained=False)
    return method_class(settings.method)(settings.config, weights=weights)


def data_path(settings: RunSettings, run: StrPath) -> Path:
    """Where the data of a run is, which need not be there any more."""
    return Path(run) / SYNTHETIC if settings.data == SYNTHETIC else Path(settings.data)


def data_folder(settings: RunSettings, run: StrPath) -> Path:
    """The folder of a run's data. Writes the synthetic set into the run if the run trains on it."""
    folder = data_path(settings, run)
    if settings.data == SYNTHETIC and not folder.is_dir():
        make_folder(run)
        synthesize(folder, seed=settings.seed)
    return folder


def regions_of(settings: RunSettings, run: StrPath) -> Regions | None:
    """Where a run looks, from its folder; None: everywhere. ``UserError`` if files there are missing or others.

    Runs of older versions do not know how many files there were of ``auto``.
    """
    if not settings.roi and not settings.ignore:
        return None
    folder, everywhere = Path(run) / FOLDER, settings.roi == AUTO and not settings.ignore
    regions = load_regions(folder, () if everywhere else settings.category.split(","), settings.roi == AUTO)
    if settings.regions not in ("", regions.digest()):
        raise UserError(f"{folder}: a mask is missing, or not the one that this run was trained with; restore them")
    return regions


def new_regions(settings: RunSettings, categories: Sequence[str]) -> Regions | None:
    """Where a new run looks: as the run that it begins with, from that run's folder, or as its files say."""
    if not settings.regions:
        return read_regions(settings.roi, settings.ignore, categories)
    regions = regions_of(load_settings(settings.init_from), settings.init_from)
    if regions is not None and regions.masks and (missing := regions.lacks(categories)):
        raise UserError(f"`roi`: {settings.init_from} has no region for {missing}; give another `roi`")
    return regions


def refuse_invalid_names(settings: RunSettings) -> None:
    """``UserError`` if a name is not valid UTF-8: config.toml could not hold it."""
    values = [
        settings.data,
        settings.init_from,
        *settings.added,
        settings.roi,
        settings.ignore,
        *settings.category.split(","),
        *asdict(settings.config).values(),
    ]
    for name in (value for value in values if isinstance(value, str)):
        if shown(name) != name:
            raise UserError(f"{shown(name)}: this name is not valid UTF-8, as {CONFIG_FILE} must be; rename it")


def refuse_data_folder(settings: RunSettings, run: Path) -> None:
    """``UserError`` if a new run would be written among images: those that it trains on, or above them, or others."""
    for place in () if settings.data == SYNTHETIC else (settings.data, *settings.added):
        if Path(os.path.realpath(place)).is_relative_to(os.path.realpath(run)):
            raise UserError(f"`out={shown(run)}`: holds the data set {shown(place)}; choose another folder")
    if run.is_dir() and not (run / CONFIG_FILE).exists():  # where a run was, a new one may begin
        of_data = layout_of(run).name != PLAIN
        if of_data or entries(run)[1]:
            raise UserError(f"`out={shown(run)}`: holds {'a data set' if of_data else 'images'}; choose another folder")


def save_settings(run: StrPath, settings: RunSettings) -> None:
    """Write config.toml."""
    head = {k: v for k, v in asdict(settings).items() if k != "config" and (k not in OPTIONAL or v)}
    values = {key: NONE if value is None else value for key, value in asdict(settings.config).items()}
    tables = {"run": {"vitlite": vitlite.__version__, **head}, "config": values}
    write_text(Path(run) / CONFIG_FILE, dumps(tables))


def load_settings(run: StrPath) -> RunSettings:
    """Read a run's config.toml. ``UserError`` names the file and what is wrong with it."""
    path = Path(run) / CONFIG_FILE
    exported = Path(run).suffix in (".onnx", ".xml")
    hint = "; an exported file can be given to predict and serve" if exported else ""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        head, values = dict(tables["run"]), dict(tables["config"])
    except FileNotFoundError:
        place = run if str(run) else "the run's name is empty"
        gone = "no such file" if exported else "no such folder"
        missing = f"no {CONFIG_FILE} here" if Path(run).exists() else gone
        raise UserError(f"{place}: {missing}; give the folder that `vitlite train` wrote{hint}") from None
    except NotADirectoryError:
        raise UserError(f"{run}: is a file; give the folder that `vitlite train` wrote{hint}") from None
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
    kinds = {"method": str, "data": str, "category": str, "preset": str, "seed": int} | dict.fromkeys(
        OPTIONAL[:-1], str
    )
    for key in OPTIONAL[:-1]:
        head.setdefault(key, "")
    added = head.pop("added", [])
    if type(added) is not list or not all(type(place) is str for place in added):
        raise UserError(f"added = {added!r}: must be a list of strings")
    wrong = sorted(kinds.keys() - head.keys()) or sorted(head.keys() - kinds.keys())
    if wrong:
        raise UserError(f"[run] is incomplete or has unknown keys ({', '.join(wrong)})")
    for key, kind in kinds.items():
        if type(head[key]) is not kind:
            raise UserError(f"{key} = {head[key]!r}: must be a {'whole number' if kind is int else 'string'}")
    if not 0 <= head["seed"] < SEEDS:
        raise UserError(f"seed = {head['seed']}: must be from 0 to 2^63 - 1")
    config = method_class(head["method"]).config_class()
    values = config.upgraded(values)
    unknown = sorted(values.keys() - {field.name for field in fields(config)})
    if unknown:
        raise UserError(f"unknown option {', '.join(unknown)}; was it written by a newer vitlite?")
    return RunSettings(config=config(**values), added=tuple(added), **head)


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
