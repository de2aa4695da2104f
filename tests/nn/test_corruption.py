"""Corruption: exact labels, how much and how often, what the operations do, and the seed."""

import math

import pytest
import torch
from pretend_cuda import pretended_cuda

from vitlite.nn import corruption
from vitlite.nn.corruption import Draw, change_pixels, corrupt, draw_blocks, paint

GENERATOR = 3


def random_images(count, size=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator).float() / 255


def seeded(seed=GENERATOR):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("visible", [0.0, 0.1])
def test_labels_are_exact(visible):
    """A pixel has label 1 if and only if it differs, bit for bit; and then by more than what is asked for."""
    images = random_images(24)
    kept = images.clone()
    corrupted, labels = corrupt(images, visible=visible, generator=seeded())
    assert torch.equal(images, kept)
    assert corrupted.shape == images.shape
    assert labels.shape == (24, 48, 48)
    differs = corrupted != images
    assert torch.equal(differs.any(1), labels.bool())
    assert set(labels.unique().tolist()) == {0.0, 1.0}
    change = (corrupted - images).abs().amax(1)[labels.bool()]
    assert change.min() > max(visible, 0.5 / 255)
    assert 0 <= corrupted.min() <= corrupted.max() <= 1
    levels = corrupted * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)


def test_a_gpu_computes_every_pixel():
    """How many are covered is not asked for there, since the answer would have to be waited for."""
    images = random_images(8)
    with pretended_cuda() as gpu:
        corrupted, labels = corrupt(images.to("cuda"), blocks=3)
        assert "aten::nonzero" not in gpu.waits
        corrupted, labels = corrupted.cpu(), labels.cpu()
    assert torch.equal((corrupted != images).any(1), labels.bool())
    assert 0 < labels.mean() < 0.5


def test_pixels_that_do_not_change_have_no_label():
    """Rotating or mirroring one colour changes nothing, so nothing may be learned from it."""
    images = torch.full((40, 3, 32, 32), 100 / 255)
    corrupted, labels = corrupt(images, share=1, blocks=1, largest=1, generator=seeded())
    assert torch.equal((corrupted != images).any(1), labels.bool())
    untouched = labels.flatten(1).amax(1) == 0
    assert 0 < untouched.sum() < 40


def test_images_between_the_levels_stay_as_they_are_outside():
    images = torch.rand(8, 3, 32, 32, generator=seeded(1))
    corrupted, labels = corrupt(images, generator=seeded())
    same = (corrupted == images).all(1)
    assert torch.equal(same, ~labels.bool())


def test_five_of_six():
    table = draw_blocks(Draw("cpu", seeded()), 3000, 32, 10, 0.3, 5 / 6)
    number = table["used"].sum(1)
    assert abs((number > 0).double().mean() - 5 / 6) < 0.03
    counts = number[number > 0].bincount(minlength=11)[1:]
    assert counts.min() > 0.7 * counts.double().mean()  # 1 to 10 blocks, all as likely
    assert counts.sum() == (number > 0).sum()


def test_blocks_lie_inside_and_have_all_sizes():
    size, largest = 200, 0.3
    table = draw_blocks(Draw("cpu", seeded()), 100, size, 100, largest, 1)
    for first, side in (("top", "height"), ("left", "width")):
        assert table[side].min() == 1
        assert table[side].max() == largest * size
        assert table[first].min() == 0
        assert (table[first] + table[side]).max() == size
    # log-uniform: as many below the geometric mean as above
    assert abs((table["height"] < math.sqrt(largest * size)).double().mean() - 0.5) < 0.05


def test_every_block_does_something_and_all_combinations_occur():
    table = draw_blocks(Draw("cpu", seeded()), 50, 64, 100, 0.3, 1)
    plain = torch.arange(3)
    does = torch.stack(
        [
            table["cos"] != 1,
            (table["row_sign"] < 0) | (table["column_sign"] < 0),
            table["noise"] > 0,
            (table["gain"] != 1).any(2) | (table["shift"] != 0).any(2) | (table["source"] != plain).any(2),
        ],
        dim=-1,
    )
    assert does.any(2).all()
    combinations = (does * torch.tensor([1, 2, 4, 8])).sum(2).unique()
    assert combinations.tolist() == list(range(1, 16))


def test_the_last_block_wins():
    """Against painting one block after the other."""
    table = draw_blocks(Draw("cpu", seeded()), 5, 40, 100, 0.5, 1)
    owner = paint(table, 40)
    want = torch.full((5, 40, 40), -1)
    for image in range(5):
        for k in range(int(table["used"][image].sum())):
            top, left, height, width = (int(table[n][image, k]) for n in ("top", "left", "height", "width"))
            want[image, top : top + height, left : left + width] = k
    assert torch.equal(owner, want)
    assert owner.max() > 90


def one_block(**changes):
    """The table of one block over rows 2 to 6 and columns 1 to 8 that does nothing but ``changes``."""
    plain = {
        "top": 2, "left": 1, "height": 5, "width": 8, "cos": 1.0, "sin": 0.0, "row_sign": 1.0, "column_sign": 1.0,
        "noise": 0.0,
    }  # fmt: skip
    table = {name: torch.tensor([[value]]) for name, value in {**plain, **changes}.items() if name in plain}
    table["used"] = torch.tensor([[True]])
    table["source"] = torch.tensor([[changes.get("source", [0, 1, 2])]])
    table["gain"] = torch.tensor([[changes.get("gain", [1.0, 1.0, 1.0])]])
    table["shift"] = torch.tensor([[changes.get("shift", [0.0, 0.0, 0.0])]])
    return table


def changed(images, table):
    """The block's pixels (3, 5, 8) after the change."""
    owner = paint(table, images.shape[-1])
    places = (owner >= 0).nonzero(as_tuple=True)
    assert len(places[0]) == 5 * 8
    values = change_pixels(
        Draw("cpu", seeded()), images.permute(0, 2, 3, 1), table, places[0], owner[places], *places[1:]
    )
    return values.unflatten(0, (5, 8)).permute(2, 0, 1)


def test_what_blocks_do():
    images = random_images(1, size=12)
    block = images[0, :, 2:7, 1:9]
    assert torch.equal(changed(images, one_block()), block)
    assert torch.equal(changed(images, one_block(row_sign=-1.0)), block.flip(1))
    assert torch.equal(changed(images, one_block(column_sign=-1.0)), block.flip(2))
    assert torch.equal(changed(images, one_block(cos=-1.0)), block.flip(1, 2))  # half a turn
    turned = changed(images, one_block(height=5, width=8, cos=0.0, sin=1.0, left=1, top=2))
    assert not torch.equal(turned, block)
    assert torch.equal(changed(images, one_block(source=[2, 0, 1])), block[[2, 0, 1]])
    brighter = changed(images, one_block(gain=[1.0, 1.0, 0.0], shift=[0.2, 0.0, 0.4]))
    assert torch.equal(brighter[1], block[1])
    assert (brighter[2] == 102 / 255).all()
    assert torch.allclose(brighter[0], (block[0] + 0.2).clamp(max=1), atol=0.51 / 255)
    noisy = changed(images * 0 + 0.5, one_block(noise=0.1))
    assert 0.07 < noisy.std() < 0.13
    assert len(noisy.unique()) > 40


def test_a_quarter_turn_of_a_square():
    images = random_images(1, size=12)
    table = one_block(height=5, width=5, left=3, cos=0.0, sin=1.0)
    owner = paint(table, 12)
    places = (owner >= 0).nonzero(as_tuple=True)
    values = change_pixels(Draw("cpu", None), images.permute(0, 2, 3, 1), table, places[0], owner[places], *places[1:])
    block = images[0, :, 2:7, 3:8]
    got = values.unflatten(0, (5, 5)).permute(2, 0, 1)
    assert any(torch.equal(got, block.rot90(k, (1, 2))) for k in (1, 3))


def test_seed_and_global_state():
    images = random_images(6)
    first, again, other = (corrupt(images, generator=seeded(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(1)
    assert torch.equal(corrupt(images)[0], first)
    state = torch.get_rng_state()
    corrupt(images, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)


def test_five_hundred_blocks_still_count_right():
    """The highest number that the method takes: 4^500 is a float64."""
    table = draw_blocks(Draw("cpu", seeded()), 1, 16, 500, 1, 1)
    table["used"][:] = True
    owner = paint(table, 16)
    covers = (table["height"][0] == 16) & (table["width"][0] == 16)
    assert owner.max() == 499
    assert owner.min() >= int(covers.nonzero().max()) if covers.any() else owner.min() >= -1


def test_one_pixel_images_and_no_images():
    assert corruption.corrupt(torch.zeros(0, 3, 8, 8))[1].shape == (0, 8, 8)
    corrupted, labels = corrupt(random_images(20, size=1), share=1, generator=seeded())
    assert corrupted.shape == (20, 3, 1, 1)
    assert labels.any()
