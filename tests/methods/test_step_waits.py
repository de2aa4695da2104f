"""What a training step asks of a GPU: it never waits for one, and starts a bounded number of operators."""

import pytest
import torch
from method_checks import images_for, tiny
from pretend_cuda import pretended_cuda

from vitlite.engine.features import FeatureCache, Part
from vitlite.engine.loop import Loop
from vitlite.engine.settings import RunSettings
from vitlite.methods import REGISTRY
from vitlite.methods.schedule import make_optimizer
from vitlite.progress import Progress

STEPS = 3  # of an epoch
# Operators that a step starts, at most, by method and stage: those of tiny networks, counted, and a tenth more.
MOST = {
    ("sivt", "train"): 660,  # half of them are Muon's
    ("anovit", "train"): 330,
    ("l2cae", "train"): 295,
    ("memca", "train"): 500,
    ("vtadl", "reconstruction"): 340,
    ("vtadl", "density"): 145,
    ("isstad", "mae"): 295,
    ("isstad", "pixel"): 610,
}


def counted_epoch(method, stage, folder):
    """(what the second epoch of a stage waited for, operators of one of its steps)."""
    settings = RunSettings("any", "data", "", "quick", 0, method.config)
    images = images_for(method, STEPS * 2)
    features = method.frozen(images)
    cache = FeatureCache(len(images), features.shape[1:], folder, method.cache_as)
    cache.put(0, features)
    method.fit([features])
    with pretended_cuda() as gpu:
        method.to("cuda")
        loop = Loop(method, settings, folder, Part(cache, range(len(images))), torch.device("cuda"))
        method.begin(stage)
        optimizer = make_optimizer(method, stage, method.config)
        with Progress("train", 2 * len(images)) as progress:
            for loop.epoch in range(2):
                gpu.waits.clear()
                started = gpu.started
                loop.run_epoch(stage, optimizer, STEPS, progress)
        return gpu.waits, (gpu.started - started) // STEPS


@pytest.mark.parametrize("name", [name for name in REGISTRY if name != "knn"])
def test_a_step_never_waits(name, tmp_path):
    """An epoch waits twice: its order goes to the GPU, and its losses come back."""
    method = tiny(name, batch_size=2, average=0.9, clip_norm=1.0, **({"mae_batch_size": 2} if name == "isstad" else {}))
    for stage in method.stages():
        waits, started = counted_epoch(method.to("cpu"), stage, tmp_path)
        assert waits == ["to cuda:0", "tolist"]
        assert started <= MOST.get((name, stage.name), 900)
