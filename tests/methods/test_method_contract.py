"""What every method of the registry does, whatever its paper: settings, losses, maps, state, and whole runs."""

import json
import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from commands import vitlite
from method_checks import images_for, tiny, tiny_config
from tiny_settings import METHODS, options_of

from vitlite.engine import loop as training_loop
from vitlite.engine import train as training
from vitlite.engine.checkpoint import load_checkpoint
from vitlite.engine.detector import Detector
from vitlite.engine.settings import load_settings
from vitlite.errors import UserError
from vitlite.export import export as exporting
from vitlite.images.loading import pixel_batches
from vitlite.methods import REGISTRY, method_class
from vitlite.methods.base import Method
from vitlite.methods.config import TrainingConfig

# Settings that cannot be, each with those that it needs to be so; the first is the one that is named.
SHARED = "lr=-1.0, epochs=0, holdout=1.0, epochs=many, epochs=2.5, compile=maybe, weight_decay=nan, target_fpr=0.0, "
SHARED += "target_fpr=1.0, target_fpr=nan, last_lr=1.0, warmup_steps=-1, optimizer=sgd, overlap=0.5, "
SHARED += "last_lr=0.0001 schedule=constant, groups=a train_images=5, folds=3 train_images=5, folds_below=9 folds=0"
MAP = "sigma=-1.0, score=median, places=some"
TRANSFORMER = f"{MAP}, patch=5, heads=3, mlp_ratio=0.0"
DECODER = f"{TRANSFORMER}, patch=32, depth=0, norm=group, augment=blur, channels=, channels=0, embedding=image"
BASE = "pretrained=True image_size=384 patch=16 dim=768 depth=12"  # what published weights need, with 12 heads
REFUSED = {
    "sivt": f"{TRANSFORMER}, subsets=1, subsets=99, normalize=batch, encoder_depth=0, backbone=magic, resize=cubic, "
    "map=sum, cosine_weight=-1.0, "
    "image_size=100 backbone=image, weights=file.pth backbone=image image_size=64, subsets=3 induction=false",
    "anovit": f"{DECODER}, weights=file.pth, patch=8 pretrained=True, heads=8 {BASE}, weights=none heads=12 {BASE}, "
    f"embedding=efficientnet_lite0 heads=12 {BASE}",
    "l2cae": f"{MAP}, latent=0, window=41, window=20, stride=17, stride=0, windows=0, image_size=40 window=0, "
    "windows=3 window=0",
    "memca": f"{DECODER}, items=1, map=entropy, ssim_window=10, ssim_weight=-1.0, entropy_weight=-1.0, "
    "temperature=0.0, attention_after=norm, items=9 memory=false, attention_after=decoder coordinate_attention=false",
    "vtadl": f"{TRANSFORMER}, vector=100, gaussians=0, noise=-1.0, noise=nan, min_std=0.0, projection=none, "
    "channels=8, image_size=96, image_size=4 patch=2, likelihood_trains=none, "
    "density_epochs=1 likelihood_trains=all, density=none, covariance=half, covariance=full density=linear, "
    "covariance=full density=position dim=4096, crop=63, crop=128 tile=64, embedding=image, weights=file.pth, "
    "density_lr=0.1 density_epochs=0",
    "knn": f"{MAP}, bank=0, neighbours=0, neighbours=51, neighbourhood=2, neighbourhood=0, sampling=grid, "
    "normalize=batch, feature_size=0, backbone=magic, resize=cubic, neighbours=2 score=max",
    "dinomaly": f"{MAP}, backbone=efficientnet_lite0, layers=1, depth=0, depth=3, dropout=1.0, mining=1.0, "
    "mining_factor=-1.0, mining_steps=0, align=edges, crop=4, crop=-1, edge=even align=corners, "
    "mining_steps=9 mining=0",
    "isstad": f"{TRANSFORMER}, variant=IX, decoder_heads=5, decoder_depth=0, mae_epochs=0, mask_ratio=0.3, "
    "mask_ratio=0.99, corrupt_blocks=0, corrupt_share=0.0, corrupt_size=1.5, corrupt_visible=1.0, "
    "checkpoint=vit_base_patch16_384, mae_lr=0.1 variant=II, pixel_weight=2.0 variant=VII, mae_lr=0.0, mae_lr=-1.0, "
    "mse_weight=-1.0, ssim_weight=-1.0, pixel_weight=-1.0",
}
# Other values of settings; each trains and scores.
BLOCKS = "heads=4, patch=4, norm=instance, norm=batch, augment=none, channels=8"
VARIANTS = {
    "sivt": "backbone=image, backbone=mobilenet_v2, backbone=vgg19, backbone=resnet34, backbone=efficientnet_b4, "
    "subsets=2, subsets=3, subsets=5, subsets=6, subsets=7, subsets=8, induction=false, patch=1, patch=4, "
    "patch=8 image_size=128 feature_size=16 subsets=2, map=l2 score=max",
    "anovit": f"{BLOCKS}, patch=16, score=std, score=mean, embedding=efficientnet_lite0",
    "l2cae": "window=0, latent=1, latent=500, stride=16, stride=15, augment=none, ssim_weight=1 map=loss, map=ssim",
    "memca": f"{BLOCKS}, memory=false, coordinate_attention=false, memory=false coordinate_attention=false, items=2, "
    "items=1000, map=ssim, map=l2, temperature=10, attention_after=encoder, attention_after=decoder, "
    "embedding=resnet18",
    "vtadl": "gaussians=1, gaussians=20, noise=0, sigma=2, projection=shared, places=none score=nll, density_epochs=0, "
    "density_epochs=0 likelihood_trains=all, density=linear, density=position covariance=full, "
    "density=position density_epochs=0 likelihood_trains=all, crop=70, embedding=efficientnet_lite0",
    "knn": "neighbours=5 score=weighted, neighbours=1 score=weighted, neighbourhood=1, neighbourhood=5, "
    "normalize=none, sampling=coreset, backbone=image, backbone=mobilenet_v2 sampling=coreset",
    "dinomaly": "align=corners edge=mirror, image_size=28 crop=56, backbone=dinov2_vits14_reg, dropout=0 mining=0, "
    "optimizer=adamw, layers=1,2,3,4",
    "isstad": "augment=none, freeze_encoder=true, score=mean, corrupt_blocks=3, positive_weight=0, period=1",
}


def cases(shared, table):
    every = [(name, text) for name in REGISTRY for text in [*shared, *table.get(name, "").split(", ")]]
    return pytest.mark.parametrize(("name", "settings"), every)


def changes(settings):
    return dict(item.split("=") for item in settings.split())


each = pytest.mark.parametrize("name", REGISTRY)


@each
@pytest.mark.usefixtures("real_transformers")
def test_presets(name):
    """``paper`` is the config's defaults; ``quick`` differs from it, and is small enough to train on two CPU cores."""
    method = method_class(name)
    assert issubclass(method, Method)
    assert method.presets["paper"] == method.config_class()()
    assert method.presets["quick"] != method.presets["paper"]
    assert all(isinstance(config, method.config_class()) for config in method.presets.values())
    parameters = method(method.presets["quick"], weights="none").parameters()
    assert sum(p.numel() for p in parameters if p.requires_grad) < 1e7


@cases(SHARED.split(", "), REFUSED)
def test_impossible_settings_are_named(name, settings):
    first = settings.split()[0]
    with pytest.raises(UserError) as error:
        tiny_config(name, **changes(settings))
    assert error.value.marked.startswith(f"`{first}`: ")


@each
@pytest.mark.parametrize(("key", "value"), [("lr", -1), ("lr", None), ("epochs", 2.5), ("epochs", True)])
def test_a_changed_config_is_checked_too(name, key, value):
    with pytest.raises(UserError, match=f"^{key}={value}: must be "):
        replace(tiny_config(name), **{key: value})


@cases(["", "places=mean score=top1", "places=scaled score=top10", "places=absolute score=rms"], VARIANTS)
def test_trains_and_scores(name, settings):
    """Every trained parameter has a gradient in one of the stages; scores do not depend on the rest of a batch."""
    method = tiny(name, **changes(settings))
    images = images_for(method)
    trained = {key for key, p in method.named_parameters() if p.requires_grad}
    features = method.frozen(images)
    method.fit([features])
    reached = set()
    for stage in method.stages():
        method.begin(stage)
        method.prepare([features])
        method.zero_grad()
        terms = method.train().loss(features)
        assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
        terms["loss"].backward()
        found = {key for key, p in method.named_parameters() if p.grad is not None}
        assert all(key.startswith(tuple(stage.trains)) for key in found)
        reached |= found
    assert reached == trained
    with torch.no_grad():
        method.eval().finish([features])
    maps, scores = method.anomaly(images)
    assert maps.shape == images[:, 0].shape
    assert scores.shape == (3,)
    assert maps.dtype == scores.dtype == torch.float32
    assert torch.isfinite(maps).all()
    assert torch.isfinite(scores).all()
    assert torch.equal(method.anomaly(images)[0], maps)
    for whole, alone in zip((maps, scores), method.anomaly(images[1:2])):
        torch.testing.assert_close(alone, whole[1:2], rtol=1e-3, atol=1e-3 * float(whole.abs().max()))
    other = tiny(name, seed=1, **changes(settings)).eval()
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.anomaly(images)[0], maps)


@each
@torch.no_grad()
def test_parts_are_images_and_maps(name):
    method = tiny(name).eval()
    images = images_for(method)
    parts = method.parts(method.frozen(images))
    assert bool(parts) == (name != "knn")
    for values in parts.values():
        assert values.shape in (images.shape, images[:, 0].shape)
        assert torch.isfinite(values).all()
        assert values.ndim == 3 or (values.min() >= 0 and values.max() <= 1)


@torch.no_grad()
def test_maps_come_of_their_parts():
    found = {}
    for name in ("isstad", "anovit", "memca", "vtadl"):
        method = tiny(name).eval()
        features = method.frozen(images_for(method))
        found[name] = method, features, method.parts(features), method.maps(method.values(features))
    method, _, parts, maps = found["isstad"]
    torch.testing.assert_close(method.smooth(parts["error"] * parts["probability"]), maps)
    method, features, parts, maps = found["anovit"]
    distance = 2 * (features - parts["reconstruction"]).square().sum(1).sqrt()
    torch.testing.assert_close(method.smooth(distance), maps)
    method, _, parts, maps = found["memca"]
    assert method.config.map == "loss"
    torch.testing.assert_close(parts["squared error"] + method.config.ssim_weight * parts["1 - SSIM"], maps)
    *_, parts, maps = found["vtadl"]
    torch.testing.assert_close(parts["negative log-likelihood"], maps)


@each
def test_half_precision(name):
    method = tiny(name)
    images = images_for(method)
    if not method.stages():
        pytest.skip("nothing is trained")
    with torch.autocast("cpu", torch.bfloat16):
        terms = method.loss(method.frozen(images))
    assert all(torch.isfinite(term) for term in terms.values())


@each
def test_describes_itself(name):
    method = tiny(name)
    assert method.image_score
    assert method.backbone_name == getattr(method.config, "backbone", None)
    assert method.weights_source is None or "random" in method.weights_source


def test_the_image_score_in_words():
    method = Method(TrainingConfig(image_size=64, score="top1"))
    assert method.image_score == "top1 of the map at 64 pixels"


@pytest.fixture(scope="module")
def run_of(tiny_data, tmp_path_factory):
    """run_of(name, settings): a finished run of a method, trained by the command when it is first asked for."""

    @cache
    def trained(name, settings=""):
        run = tmp_path_factory.mktemp("methods") / name
        options = options_of(METHODS.get(name, {}) | changes(settings))
        vitlite("train", "--method", name, "--data", tiny_data, "--out", run, *options, "--device", "cpu")
        return run

    return trained


@each
def test_commands(run_of, tiny_data, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(run_of(name), run)
    vitlite("eval", run)
    results = json.loads((run / "results.json").read_text())
    assert results["about"]["method"] == name
    assert results["about"]["image_score"] == tiny(name).image_score
    assert all(0 <= value <= 1 for value in results["mean"].values())
    vitlite("calibrate", run, "--target-fpr", "0.2")
    vitlite("predict", run, tiny_data / "weave/test/missing", "--out", tmp_path / "p")
    assert (tmp_path / "p/predictions.csv").read_text().count("\n") == 3
    stages = tiny(name).stages()
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] if stages else []
    assert [entry["stage"] for entry in log] == [stage.name for stage in stages for _ in range(stage.epochs)]
    assert all(np.isfinite(entry["loss"]) for entry in log)


class Interrupted(Exception):
    pass


@each
def test_resume_reaches_the_same_weights(run_of, tmp_path, monkeypatch, name):
    """Stopped at the beginning and in the middle of every stage; bit for bit as if it had not been."""
    settings, step = load_settings(run_of(name)), training_loop.Loop.train_step
    monkeypatch.setattr(training_loop, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    whole = load_checkpoint(run_of(name), name)["model"]
    for place in [(stage, epoch) for stage in range(len(tiny(name).stages())) for epoch in (0, 1)][1:]:

        def stop(self, *args, place=place):
            if (self.stage, self.epoch) == place:
                raise Interrupted
            return step(self, *args)

        run = tmp_path / "{}-{}".format(*place)
        with monkeypatch.context() as patch:
            patch.setattr(training_loop.Loop, "train_step", stop)
            with pytest.raises(Interrupted):
                training.train(settings, run, device="cpu")
        training.train(load_settings(run), run, device="cpu", resume=True)
        cut = load_checkpoint(run, name)["model"]
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[key], cut[key]) for key in whole)


@each
def test_images_are_kept_as_bytes_without_loss(run_of, tiny_data, tmp_path, name):
    method = Detector(run_of(name), "cpu").method
    if method.cache_as != "uint8":
        pytest.skip("its features are no images")
    size = method.config.image_size
    paths = sorted((tiny_data / "weave/train/good").glob("*.png"))[:3]
    cache, _ = training.cache_features(method, paths, tmp_path, torch.device("cpu"))
    assert cache.values.dtype == torch.uint8
    pixels = np.concatenate([p for _, p in pixel_batches(paths, size, 2)])
    assert np.array_equal(cache.values.numpy(), pixels.transpose(0, 3, 1, 2))


def to_export(name):
    """Settings without convolutions before the method, which take long to trace and have tests in tests/backbones."""
    return "backbone=image" if METHODS.get(name, {}).get("backbone") == "efficientnet_lite0" else ""


@each
def test_export_needs_no_operator_of_ours(run_of, tmp_path, monkeypatch, name):
    """The command compares the scores of the file with those of the run."""
    traced, trace = [], exporting.trace
    monkeypatch.setattr(exporting, "trace", lambda *args: traced.append(trace(*args)) or traced[-1])
    vitlite("export", run_of(name, to_export(name)), "--format", "pt2", "--out", tmp_path / "model.pt2")
    nodes = {str(node.target) for program in traced for node in program.graph.nodes}
    assert nodes
    assert not [target for target in nodes if "vitlite" in target or "mkldnn" in target]


# The exporter takes long; each of these has what the others have not: a memory, a search. SIVT's file has tests/export.
QUICK_TO_EXPORT = ("memca", "knn")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK_TO_EXPORT)) for name in REGISTRY]
)
def test_export_to_onnx(run_of, tiny_data, tmp_path, name):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    out = tmp_path / "model.onnx"
    vitlite("export", run_of(name, to_export(name)), "--out", out)
    vitlite("predict", out, tiny_data / "weave/test/missing", "--out", tmp_path / "p")
    assert (tmp_path / "p/predictions.csv").is_file()
