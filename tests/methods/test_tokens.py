"""Tokens of frozen features: what the embedding learns, and what a run keeps of the backbone."""

from dataclasses import replace

import pytest
import torch
from method_checks import count, images_for, tiny, tiny_config

from vitlite.methods import method_class
from vitlite.methods.tokens import STRIDES


@pytest.fixture(params=["anovit", "vtadl"])
def hybrid(request):
    return tiny(request.param, embedding="efficientnet_lite0")


def name_of(method):
    return type(method).__name__.lower()


def test_the_preset_differs_by_its_tokens_alone():
    for name in ("anovit", "memca", "vtadl"):
        quick, config = (method_class(name).presets[preset] for preset in ("quick", "hybrid"))
        assert (quick.embedding, config.embedding) == ("pixels", "efficientnet_lite2")
        assert replace(config, embedding="pixels", steps=quick.steps) == quick


def test_features_are_standardised_over_the_training_images(hybrid):
    images = images_for(hybrid, 4)
    hybrid.fit([images[:2], images[2:]])
    features = hybrid.features_of(2 * images - 1)
    assert features.shape[1] == sum(hybrid.backbone.channels)
    assert hybrid.backbone.strides == STRIDES
    embedding = hybrid.embedding
    standard = (features - embedding.mean[:, None, None]) / embedding.deviation[:, None, None]
    assert standard.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(standard.std((0, 2, 3), correction=0), torch.ones(features.shape[1]), rtol=1e-3, atol=0)
    want = embedding.proj(standard.flatten(2).transpose(1, 2))
    torch.testing.assert_close(embedding(features), want)


def test_the_backbone_is_never_trained_and_is_part_of_the_checkpoint(hybrid):
    assert not any(parameter.requires_grad for parameter in hybrid.backbone.parameters())
    assert count(hybrid.backbone) > 0
    images = images_for(hybrid)
    hybrid.fit([images])
    hybrid.begin(hybrid.stages()[0])
    hybrid.loss(images)["loss"].backward()
    assert hybrid.embedding.proj.weight.grad.abs().sum() > 0
    other = tiny(name_of(hybrid), seed=1, embedding="efficientnet_lite0")
    with torch.no_grad():
        for values in other.backbone.parameters():
            values.add_(0.01)
        different = other.eval().tokens(2 * images - 1)
        other.load_state_dict(hybrid.state_dict())
        torch.testing.assert_close(other.anomaly(images), hybrid.eval().anomaly(images))
        assert not torch.allclose(different, other.tokens(2 * images - 1))
    assert other.backbone_name == "efficientnet_lite0"
    assert "random" in other.weights_source


def test_without_features_there_is_no_backbone():
    method = tiny("memca")
    assert method.embedding is None
    assert method.backbone_name is None
    assert not any(key.startswith(("backbone.", "embedding.")) for key in method.state_dict())
    assert tiny_config("memca").weights == "auto"
