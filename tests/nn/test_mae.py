"""The masked autoencoder's plumbing: patches, token order, what the encoder sees, what the loss compares."""

import pytest
import torch
from torch.nn import functional as F

from vitlite.nn.mae import Decoder, MaskedAutoencoder, patchify, take, unpatchify


def small(size=24, patch=4):
    torch.manual_seed(0)
    return MaskedAutoencoder(size, patch, 16, 2, 2, 12, 2, 2).double()


def test_patchify():
    images = torch.randn(2, 3, 12, 12)
    patches = patchify(images, 4)
    assert patches.shape == (2, 9, 48)
    assert torch.equal(patches[1, 5].view(4, 4, 3), images[1, :, 4:8, 8:12].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, 4, (3, 3)), images)
    single = torch.arange(9.0).view(1, 9, 1).expand(1, 9, 16)
    assert unpatchify(single, 4, (3, 3))[0, 0, ::4, ::4].flatten().tolist() == list(range(9))


def test_order_of_tokens_does_not_matter():
    """With nothing hidden, any order of the visible patches gives what the whole image gives, in image order."""
    model = small()
    images = torch.randn(3, 3, 24, 24, dtype=torch.double)
    order = torch.rand(3, 36).argsort(1)
    whole = model.decoder.reconstruct(model.levels(images)[-1])
    torch.testing.assert_close(model.reconstruct_hidden(images, order, 36), whole)


def test_hidden_patches_are_not_seen():
    model = small()
    images = torch.randn(2, 3, 24, 24, dtype=torch.double)
    order = torch.rand(2, 36).argsort(1)
    hidden = torch.zeros(2, 36, 48, dtype=torch.bool).scatter_(1, order[:, 9:, None].expand(-1, -1, 48), True)
    other = torch.where(model.to_images(hidden), torch.randn_like(images), images)
    with torch.no_grad():
        assert torch.equal(model.reconstruct_hidden(images, order, 9), model.reconstruct_hidden(other, order, 9))
        seen = torch.where(model.to_images(hidden), images, 0.0)
        assert not torch.allclose(model.reconstruct_hidden(images, order, 9), model.reconstruct_hidden(seen, order, 9))


def test_mask_tokens_stand_at_the_hidden_positions():
    """Without blocks and positions the decoder is its embedding, with the mask token where nothing was seen."""
    decoder = Decoder((3, 3), 8, 8, 1, 2, 4.0, 5)
    decoder.pos_embed.data.zero_()
    decoder.blocks = torch.nn.ModuleList([torch.nn.Identity()])
    latent, order = torch.randn(2, 1 + 4, 8), torch.rand(2, 9).argsort(1)
    (tokens,) = decoder(latent, order.argsort(1))
    embedded = decoder.embed(latent)
    assert torch.equal(tokens[:, 0], embedded[:, 0])
    assert torch.equal(take(tokens[:, 1:], order[:, :4]), embedded[:, 1:])
    assert torch.equal(take(tokens[:, 1:], order[:, 4:]), decoder.mask_token.expand(2, 5, 8))


@pytest.mark.parametrize("normalize", [False, True])
def test_loss_is_the_mean_over_hidden_patches(normalize):
    model = small()
    images, noise = torch.randn(2, 3, 24, 24, dtype=torch.double), torch.rand(2, 36)
    with torch.no_grad():
        got = model.loss(images, 0.75, normalize, noise)
        order = noise.argsort(1)
        output = model.reconstruct_hidden(images, order, 9)
    target = patchify(images, 4)
    if normalize:
        target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
    errors = [(output[i, j] - target[i, j]).square().mean() for i in range(2) for j in order[i, 9:].tolist()]
    assert len(errors) == 2 * 27
    torch.testing.assert_close(got, torch.stack(errors).mean(), rtol=1e-6, atol=0)


def test_masks_come_from_the_global_state():
    model, images = small().float(), torch.randn(2, 3, 24, 24)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(float(model.loss(images).detach()))
    assert losses[0] == losses[1] != losses[2]


def test_position_tables_are_fixed_and_distinct():
    model = small()
    names = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert names == {"encoder.pos_embed", "decoder.pos_embed"}
    for table in (model.encoder.pos_embed, model.decoder.pos_embed):
        near = F.cosine_similarity(table[0, 1:, None], table[0, None, 1:], dim=-1) - torch.eye(36)
        assert near.max() < 0.9999
