"""Weights that the transformer of SIVT begins with: what comes with vitlite, and files of one's own."""

from dataclasses import replace

import pytest
import torch
from method_checks import tiny_config

from vitlite.backbones.transformer_weights import resize_grid
from vitlite.errors import UserError
from vitlite.methods.sivt import QUICK, SIVT
from vitlite.methods.start import FOLDER, save_start

TINY = replace(tiny_config("sivt", backbone="image"), start="none")


@pytest.fixture
def start(tmp_path):
    """A network, and the file that it was written to."""
    torch.manual_seed(5)
    method = SIVT(TINY)
    path = tmp_path / "start.pt"
    with path.open("wb") as file:
        save_start(file, method.transformer, TINY, {"steps": 3})
    return method.transformer, path


def test_a_network_begins_with_the_file(start):
    saved, path = start
    method = SIVT(replace(TINY, start=str(path)))
    assert method.start_source == str(path)
    for name, value in method.transformer.named_parameters():
        torch.testing.assert_close(value, saved.get_parameter(name).half().float(), rtol=0, atol=0)


def test_what_belongs_to_places_is_interpolated(start):
    saved, path = start
    larger = replace(TINY, start=str(path), feature_size=16, image_size=128)
    given = SIVT(larger).transformer
    assert given.positions.shape[-2] == 4 * saved.positions.shape[-2]
    torch.testing.assert_close(given.head.weight, saved.head.weight.half().float(), rtol=0, atol=0)
    plane = torch.linspace(0, 1, 8)[:, None].expand(8, 8).reshape(1, 64, 1)
    grown = resize_grid(plane, (8, 8), (8, 16)).reshape(8, 16)
    torch.testing.assert_close(grown, plane.reshape(8, 8)[:, :1].expand(8, 16), rtol=0, atol=1e-6)


def test_a_finer_patch_spreads_each_place_over_a_square(start):
    """Features that are alike within squares of 2x2 places lead to the same tokens, so to the same output."""
    saved, path = start
    small, finer = (
        replace(TINY, start=str(path)),
        replace(TINY, start=str(path), feature_size=16, patch=4, image_size=128),
    )
    coarse, fine = SIVT(small), SIVT(finer)
    assert coarse.transformer.embed.weight.shape[1] * 4 == fine.transformer.embed.weight.shape[1]
    features = torch.randn(2, sum(coarse.backbone.channels), 8, 8)
    order = torch.randperm(len(saved.positions))
    with torch.no_grad():
        expected = coarse.reconstruct(features, order)
        given = fine.reconstruct(squares(features), order)
    torch.testing.assert_close(given, squares(expected), rtol=1e-4, atol=1e-5)


def squares(maps):
    """Each place of maps (B, C, H, W) as a square of 2x2."""
    return maps.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_a_file_of_another_network_is_refused(start, tmp_path):
    _, path = start
    with pytest.raises(UserError, match=r"start=.*dim="):
        SIVT(replace(TINY, start=str(path), dim=2 * TINY.dim))
    with pytest.raises(UserError, match=r"start=.*patch=2"):  # no multiple of it
        SIVT(replace(TINY, start=str(path), patch=1))
    with pytest.raises(UserError, match=r"start=.*no such file"):
        SIVT(replace(TINY, start=str(tmp_path / "none.pt")))
    (tmp_path / "text.pt").write_text("text")
    with pytest.raises(UserError, match=r"start=.*bench start"):
        SIVT(replace(TINY, start=str(tmp_path / "text.pt")))


def test_a_start_without_induction(tmp_path):
    config = replace(TINY, induction=False)
    saved = SIVT(config).transformer
    with open(tmp_path / "start.pt", "wb") as file:
        save_start(file, saved, config, {"steps": 3})
    given = SIVT(replace(config, start=str(tmp_path / "start.pt"))).transformer
    torch.testing.assert_close(given.positions, saved.positions.half().float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state["weights"].pop("head.weight"),
        lambda state: state["weights"].pop("positions"),
        lambda state: state["weights"].update({"head.weight": torch.zeros(1)}),
        lambda state: state["weights"].update({"head.weight": "none"}),
        lambda state: state.update(grid=(2, 3)),
        lambda state: state.update(shaping=["dim"]),
    ],
)
def test_a_damaged_file_is_refused_and_nothing_stays_random(start, tmp_path, damage):
    state = torch.load(start[1], weights_only=True)
    damage(state)
    torch.save(state, tmp_path / "damaged.pt")
    with pytest.raises(UserError, match=r"start=.*damaged\.pt: not a file that vitlite bench start wrote"):
        SIVT(replace(TINY, start=str(tmp_path / "damaged.pt")))


def test_without_a_file_that_fits_weights_are_random():
    torch.manual_seed(1)
    drawn = SIVT(TINY).transformer
    torch.manual_seed(1)
    method = SIVT(replace(TINY, start="auto"))
    assert method.start_source is None
    assert torch.equal(method.transformer.head.weight, drawn.head.weight)


def test_quick_has_a_start():
    assert (FOLDER / f"{QUICK.backbone}.pt").exists()
    torch.manual_seed(0)
    method = SIVT(replace(QUICK, weights="none"))
    assert method.start_source == "random products"
    assert all(value.isfinite().all() for value in method.transformer.parameters())
