"""Weights that the transformer of SIVT begins with, instead of random ones.

``vitlite/methods/starts`` holds those that come with vitlite, by the name of the backbone. They were taught on random
products, and on no real image, by ``vitlite bench start``. A file has the settings that shape the network
(:data:`SHAPING`), what it was made of, and the parameters in float16.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from vitlite.backbones.transformer_weights import resize_grid
from vitlite.errors import UserError, first_line
from vitlite.methods.config import AUTO, NONE

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "starts"
# Settings that have to be those of the file. The size of the grid need not: what belongs to places is interpolated.
# Nor need the patch, if it is a multiple of that of the file: each place becomes a square of places.
SHAPING = (
    "backbone",
    "strides",
    "layers",
    "normalize",
    "induction",
    "dim",
    "encoder_depth",
    "decoder_depth",
    "heads",
    "mlp_ratio",
)
OF_PLACES = {"positions", "decoder_positions", "induction"}


def save_start(file: IO[bytes], transformer: nn.Module, config: Any, made: Mapping[str, Any]) -> None:
    """Write the parameters of a transformer; ``made`` says how they came about."""
    weights = {name: value.detach().half() for name, value in transformer.named_parameters()}
    shaping = {key: getattr(config, key) for key in (*SHAPING, "patch")}
    torch.save({"shaping": shaping, "made": dict(made), "grid": config.tokens, "weights": weights}, file)


def load_start(transformer: nn.Module, config: Any) -> str | None:
    """Give a transformer its start; returns where that comes from, or None if it keeps its random weights.

    With ``start=auto`` it keeps them if no file fits. Raises ``UserError`` for a path to something that does not fit.
    """
    if config.start == NONE:
        return None
    path = FOLDER / f"{config.backbone}.pt" if config.start == AUTO else Path(config.start)
    if config.start == AUTO and not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        shaping = state["shaping"]
        other = [f"{key}={shaping.get(key)}" for key in SHAPING if shaping.get(key) != getattr(config, key)]
        if config.patch % shaping["patch"]:
            other.append(f"patch={shaping['patch']}")
        if not other:
            put_start(transformer, spread(state["weights"], shaping["patch"], config.patch), state["grid"], config)
    except FileNotFoundError:
        raise UserError(f"`start={config.start}`: no such file") from None
    except Exception as error:  # torch raises many kinds
        raise UserError(
            f"`start={config.start}`: not a file that vitlite bench start wrote ({first_line(error)})"
        ) from error
    if other:
        if config.start != AUTO:
            raise UserError(
                f"`start={config.start}`: is of a network with {', '.join(other)}; set these, or start=none"
            )
        log.info("begins with random weights: what comes with vitlite is of %s", ", ".join(other))
        return None
    return "random products" if config.start == AUTO else str(path)


def spread(weights: dict[str, Tensor], patch: int, wanted: int) -> dict[str, Tensor]:
    """Weights for patches of ``wanted`` places a side, a multiple of ``patch``: each place becomes a square of places.

    Features that are alike within the squares then lead to the same tokens and to the same output.
    """
    times = wanted // patch
    if times == 1:
        return weights

    def squares(rows: Tensor) -> Tensor:  # (C * patch ** 2, ...), as pixel_unshuffle orders them
        places = rows.unflatten(0, (-1, patch, patch))
        return places.repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(0, 2)

    embed = squares(weights["embed.weight"].T).T.float() / times**2
    head = {name: squares(weights[name]) for name in ("head.weight", "head.bias")}
    return {**weights, "embed.weight": embed, **head}


def put_start(transformer: nn.Module, weights: dict[str, Tensor], grid: tuple[int, int], config: Any) -> None:
    """Give each parameter its weights, those of places resized; whatever error a damaged file leads to."""
    weights = {name: weights[name] for name, _ in transformer.named_parameters()}
    for name in weights.keys() & OF_PLACES:  # without induction there is none for it
        table = weights[name].float().reshape(1, math.prod(grid), config.dim)
        weights[name] = resize_grid(table, grid, config.tokens).view_as(transformer.get_parameter(name))
    transformer.load_state_dict(weights, strict=False)  # what is no parameter belongs to the grid
