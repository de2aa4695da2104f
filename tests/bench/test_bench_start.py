"""Weights taught on random products: the products, and the whole way to a file that SIVT begins with."""

import numpy as np
import torch
from tiny_settings import TINY

from vitlite.bench import start
from vitlite.bench._programs import SHAPES, TEXTURES, Program
from vitlite.methods.config import change
from vitlite.methods.sivt import QUICK, SIVT


def test_products_depend_on_their_seed_alone():
    programs = [Program(seed) for seed in range(40)]
    images = [program.image(0, 32) for program in programs]
    assert all(image.shape == (32, 32, 3) and image.dtype == np.uint8 for image in images)
    assert len({image.tobytes() for image in images}) == 40
    assert np.array_equal(Program(3).image(1, 32), programs[3].image(1, 32))
    assert not np.array_equal(programs[3].image(1, 32), images[3])
    textures = {program.ground.kind for program in programs} | {s.texture.kind for p in programs for s in p.shapes}
    assert textures == set(TEXTURES)
    assert {shape.kind for program in programs for shape in program.shapes} == set(SHAPES)


def test_a_stopped_call_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(start, "ALONE", 1)
    settings = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]

    def make(name, steps):
        options = ["--work", str(tmp_path / name), "--programs", "2", "--images", "4", "--steps", str(steps)]
        out = tmp_path / f"{name}.pt"
        assert start.main(["--out", str(out), *options, *settings]) == 0
        return torch.load(out, weights_only=True)["weights"]

    whole = make("whole", 4)
    make("parts", 2)
    parts = make("parts", 4)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    config = change(QUICK, TINY | {"start": str(tmp_path / "whole.pt")})
    assert SIVT(config).start_source == str(tmp_path / "whole.pt")
