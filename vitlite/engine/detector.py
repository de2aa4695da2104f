"""A trained run, loaded: the method with its weights, its settings and its calibration."""

import functools
import hashlib
import io
import json
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitlite.calibration import SCHEMA
from vitlite.engine.checkpoint import (
    CALIBRATION_FILE,
    CHECKPOINT_FILE,
    load_checkpoint,
    refuse_other_scores,
    restore_model,
    scored_by,
    why_unfinished,
)
from vitlite.engine.distributed import pick_device
from vitlite.engine.features import to_images
from vitlite.engine.settings import CONFIG_FILE, build_method, load_settings, regions_of
from vitlite.errors import UserError
from vitlite.files import DAMAGED, MAX_MEGAPIXELS, StrPath
from vitlite.good_scores import SCORED_BY
from vitlite.images.known import Known
from vitlite.images.loading import Loaded
from vitlite.images.regions import level_outside
from vitlite.images.resize import resize_image
from vitlite.images.scale import Reading, as_pixels
from vitlite.limits import check_calibration
from vitlite.methods import method_class
from vitlite.methods.base import Method
from vitlite.predictor import Predictor
from vitlite.score_table import entries


class Detector(Predictor):
    """``Detector(run)`` loads a run directory; needs no weights but those in its checkpoint.

    Several threads may predict with one detector at a time; the numbers are those of one thread.
    ``calibrated=False`` leaves calibration.json unread, to be written anew. ``max_megapixels`` limits the size of an
    image.

    A pickle holds all that scoring needs, with the weights, and the name of the device: the copy scores the same
    without the run's folder. A process that was forked from the one that loaded the detector cannot use it
    (``UserError``): torch's threads do not live on there, and the first wait for them would never end.
    """

    def __init__(
        self,
        run: StrPath,
        device: str = "auto",
        *,
        calibrated: bool = True,
        max_megapixels: float = MAX_MEGAPIXELS,
        precision: str = "float32",
    ) -> None:
        self.run, self.device, self.precision = Path(run), pick_device(device), precision
        self.settings = load_settings(run)
        known = method_class(self.settings.method).precisions
        if precision not in known:
            name = self.settings.method
            raise UserError(f"`precision={precision}`: {name} scores in {' or '.join(known)}")
        self.image_size = self.settings.config.view.size
        self.tiles = self.settings.config.view if self.settings.config.tile else None
        regions = regions_of(self.settings, run)
        self.reading = Reading(self.settings.config.image_scale, as_pixels(max_megapixels), regions)
        state = load_checkpoint(run, self.settings.method)
        self.fingerprint = state["fingerprint"]  # of the images that were trained on
        self.weights_source = state.get("weights")  # where training found the weights of the frozen part; None: unknown
        self.calibration: dict[str, Any] = load_calibration(run) if calibrated else {}
        scale = {end: getattr(self.settings.config, end) for end in ("black", "white")}
        if {end: self.calibration.get(end, scale[end]) for end in scale} != scale:
            raise UserError(f"{run}: {CONFIG_FILE} has another black or white than {CALIBRATION_FILE}; restore it")
        read = self.settings  # those of the files, whatever a class of one's own makes of them
        self._make_ready(state)  # refuses weights that are damaged, or of another network
        self.scored_by = scored_by(read, state["model"])
        refuse_other_scores(self.calibration.get(SCORED_BY, {}), self.scored_by, self.run / CALIBRATION_FILE)

    def _make_ready(self, state: dict[str, Any]) -> None:
        """Build the method in this process, with the weights of a checkpoint's ``state``."""
        self.method = build_method(self.settings, weights="none")
        restore_model(self.method, state, self.run / CHECKPOINT_FILE)
        self.method.to(self.device).eval()
        self.method.scoring = self.precision
        has_parts = type(self.method).parts is not Method.parts
        self.without_parts = "" if has_parts else f"{self.settings.method} shows a map alone; leave it out"
        self.more_parts: Callable[[Tensor], dict[str, Tensor]] | None = None  # of ``frozen`` features, as the method's
        self._one_at_a_time = threading.Lock()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds. The weights are plain bytes: no shared memory that has to outlive this process."""
        weights = io.BytesIO()
        torch.save(self.method.state_dict(), weights)
        made_anew = ("method", "more_parts", "_one_at_a_time", "_process")
        kept = {key: value for key, value in vars(self).items() if key not in made_anew}
        return kept | {"device": str(self.device), "weights": weights.getvalue()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the detector anew. ``UserError`` if its device is not there."""
        weights = torch.load(io.BytesIO(state.pop("weights")), map_location="cpu", weights_only=True)
        vars(self).update(state, device=pick_device(state["device"]))
        self._make_ready({"model": weights})

    def __repr__(self) -> str:
        return f"Detector({str(self.run)!r}, method={self.settings.method!r}, device={str(self.device)!r})"

    def score_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images (B, S, S, 3), RGB, to maps (B, S, S) and scores (B,), float32 arrays.

        ``UserError`` in a process that was forked after loading.
        """
        self._refuse_after_fork()
        maps, scores = self.anomaly(to_images(pixels, self.device))
        return maps.cpu().numpy(), scores.cpu().numpy()

    def map_of(self, loaded: Loaded) -> np.ndarray:
        """The map of one image, in the size of what is seen of it."""
        return self.score_seen([loaded])[0][0]

    def parts_of(self, image: Loaded, batch_size: int = 8) -> dict[str, np.ndarray]:
        """What shows how the map of an image comes about, as the method's ``parts``; empty if it has none.

        If a box of the image is seen, they have the size of the whole image.
        """
        if self.without_parts:
            return {}
        inside = image.seen_inside
        if self.tiles is None:
            found = {name: own[0] for name, own in self._part_pixels(image.pixels[None]).items()}
        else:
            found = self.tiles.stitch(image.pixels, self._part_pixels, batch_size, inside)
        leveled = {name: level_outside(own, inside) if own.ndim == 2 else own for name, own in found.items()}
        return {name: image.framed(values) for name, values in leveled.items()}

    @torch.no_grad()
    def _part_pixels(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 images (B, S, S, 3) to the parts (B, S, S) or (B, 3, S, S), float32, by name."""
        with self.one_at_a_time() as method:
            features = method.frozen(to_images(pixels, self.device))
            found = (self.more_parts(features) if self.more_parts else {}) | method.parts(features)
        return {name: values.float().cpu().numpy() for name, values in found.items()}

    def digest(self) -> str:
        """SHA-256 of the settings, the weights and the precision, as they were when it was first asked for."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        settings = {"method": self.settings.method, **asdict(self.settings.config)}
        if self.precision != "float32":
            settings["precision in scoring"] = self.precision
        whole = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, values in self.method.state_dict().items():
            whole.update(name.encode())
            whole.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        if self.reading.regions is not None:
            whole.update(self.reading.regions.digest().encode())
        return whole.hexdigest()

    def anomaly(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) float in [0, 1] on the device to maps (B, S, S) and scores (B,).

        ``UserError`` in a process that was forked after loading.
        """
        with self.one_at_a_time() as method:
            return method.anomaly(images)

    @contextmanager
    def one_at_a_time(self) -> Iterator[Method]:
        """The method, for one forward pass at a time.

        Each uses the whole device already, and a method may keep buffers between layers or make its inference copy on
        the first call. Decoding, resizing and what follows the map run beside it. ``UserError`` in a process that was
        forked after loading.
        """
        self._refuse_after_fork()
        with self._one_at_a_time:
            yield self.method

    def _refuse_after_fork(self) -> None:
        if self._process != os.getpid():
            raise UserError(
                f"{self.run}: loaded before a fork; load it in each worker, or start workers by spawn or forkserver"
            )


class _Keeping(Predictor):
    """A detector that answers as the one it is made of, and keeps what the same forward passes give besides."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.calibration, self.image_size, self.reading = detector.calibration, detector.image_size, detector.reading
        self.tiles = detector.tiles

    def digest(self) -> str:
        """That of the detector."""
        return self.detector.digest()

    @torch.no_grad()
    def score_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As the detector's, from the same forward pass as what is kept."""
        with self.detector.one_at_a_time() as method:
            features = method.frozen(to_images(pixels, self.detector.device))
            values, errors = method.measure(features)
            maps, scores = method.maps_and_scores(values, method.places(values), errors)
            self.keep(method, features, values, errors)
        return maps.cpu().numpy(), scores.cpu().numpy()

    @abstractmethod
    def keep(self, method: Method, features: Tensor, values: Tensor, errors: Tensor | None) -> None:
        """Keep something of a batch: its ``frozen`` features, and what ``measure`` gave."""


class Compared(_Keeping):
    """It keeps what images are compared by, ``rows`` of float32 (B, d) in the order of scoring, as training does."""

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector)
        self.rows: list[np.ndarray] = []

    def keep(self, method: Method, features: Tensor, values: Tensor, errors: Tensor | None) -> None:
        """The features of whole images; tiles are compared by what ``score_seen`` sees of their image."""
        if self.tiles is None:
            self.rows.append(method.coarse(features).float().cpu().numpy())

    @torch.no_grad()
    def score_seen(self, images: Sequence[Loaded], batch_size: int = 8) -> tuple[list[np.ndarray], list[float]]:
        """As the detector's."""
        if self.tiles is not None:
            for image in images:
                whole = to_images(resize_image(image.pixels, self.tiles.sides)[None], self.detector.device)
                with self.detector.one_at_a_time() as method:
                    self.rows.append(method.coarse(method.frozen(whole)).float().cpu().numpy())
        return super().score_seen(images, batch_size)


class EveryScore(_Keeping):
    """It keeps the scores that other settings would give.

    ``kept`` has a list of one score an image, in the order of scoring, for each (score, places).
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector)
        self.kept: dict[tuple[str, str], list[float]] = {}

    def keep(self, method: Method, features: Tensor, values: Tensor, errors: Tensor | None) -> None:
        """The scores of a batch."""
        for settings, found in method.every_score(values, errors).items():
            self.kept.setdefault(settings, []).extend(found.tolist())

    def score_seen(self, images: Sequence[Loaded], batch_size: int = 8) -> tuple[list[np.ndarray], list[float]]:
        """As the detector's. Of the scores that are kept of an image's tiles, the highest stays."""
        before = len(next(iter(self.kept.values()), []))
        found = super().score_seen(images, batch_size)
        if self.tiles is not None:  # images come one by one
            for kept in self.kept.values():
                kept[before:] = [max(kept[before:])]
        return found

    def entries(self, labels: Sequence[int]) -> list[dict[str, Any]]:
        """What results.json says of them, with the labels of the images."""
        method = self.detector.method
        return entries(labels, self.kept, (method.score_name, method.places_name))


def load_calibration(run: StrPath) -> dict[str, Any]:
    """Read the calibration.json of a run. ``UserError`` if it is missing or damaged, or a newer version wrote it."""
    path = Path(run) / CALIBRATION_FILE
    again = f"vitlite calibrate {run} writes it anew"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result.get("schema", 1) > SCHEMA:
            raise UserError(f"{path}: written by a newer vitlite (schema {result['schema']}); upgrade, or {again}")
        check_calibration(result)
        Known.both_in(result)  # that it can be read
        return result
    except FileNotFoundError:
        unfinished = "training did not finish; resume it with `vitlite train`"
        raise UserError(f"{path}: not there; {why_unfinished(run) or unfinished}") from None
    except DAMAGED as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error}); {again}") from None
