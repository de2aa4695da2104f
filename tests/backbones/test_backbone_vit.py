"""Vision transformers: numbers against `transformers`, names in files, sizes of images, and what is refused."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from backbone_helpers import difference, random_images
from commands import vitlite
from torch import nn

from vitlite import backbones
from vitlite.backbones import vit
from vitlite.errors import UserError

NATIVE = (56, 56)
# rows and columns that are more and fewer than those of the position embeddings, which are 4 x 4
OTHERS = ((42, 84), (70, 28))
BOUND = 1e-5  # relative to the largest value of a map

# of a real network: (class, settings) of the same one in `transformers`
REFERENCES = {
    "dinov2_vits14": ("Dinov2", {}),
    "dinov2_vits14_reg": ("Dinov2WithRegisters", {"num_register_tokens": 4}),
    "mae_vit_base_patch16": ("ViTMAE", {"intermediate_size": 64, "mask_ratio": 0.0}),
    "vit_base_patch16_224": ("ViT", {"intermediate_size": 64}),
    "dinov3_vits16": ("DINOv3ViT", {"intermediate_size": 64, "num_register_tokens": 4, "layer_norm_eps": 1e-5}),
}


def small(network):
    """A network of 3 blocks, otherwise as the real one."""
    return replace(network, dim=16, depth=3, heads=2, patch=14, side=4)


@pytest.fixture
def networks(monkeypatch):
    """Every network is small."""
    for name, network in vit.NETWORKS.items():
        monkeypatch.setitem(vit.NETWORKS, name, small(network))
    return vit.NETWORKS


def scattered(module, seed=0):
    """Random parameters, none of them 0 or 1, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 1.0
            nn.init.normal_(parameter, mean=0.1, std=scale, generator=generator)
    return module.eval()


def reference(name):
    """The model of `transformers` with the layout of a small network."""
    transformers = pytest.importorskip("transformers")
    kind, settings = REFERENCES[name]
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 14, "image_size": 56}
    config = getattr(transformers, f"{kind}Config")(**{"layer_norm_eps": 1e-6, **shape, **settings})
    return scattered(getattr(transformers, f"{kind}Model")(config))


def outputs_of(model, pixels):
    """Tokens after each block, and those after the last norm."""
    options = {"output_hidden_states": True}
    if type(model).__name__ == "ViTMAEModel":  # in order: nothing is hidden
        options["noise"] = torch.arange(pixels[0, 0].numel() // 14**2).expand(len(pixels), -1).float()
    if type(model).__name__.startswith("ViT"):  # not DINO's
        options["interpolate_pos_encoding"] = True
    with torch.no_grad():
        found = model(pixels, **options)
    return found.hidden_states[1:], found.last_hidden_state


@pytest.mark.parametrize("name", REFERENCES)
def test_every_layer_agrees_with_transformers(name, networks, tmp_path, monkeypatch):
    # Where it leaves the publisher's way, of the position embeddings of DINOv2, another test holds that.
    monkeypatch.setitem(networks, name, replace(networks[name], offset=0.0))
    model = reference(name)
    model.save_pretrained(tmp_path)
    backbone = backbones.create(name, weights=tmp_path / "model.safetensors", layers=(1, 2, 3))
    assert backbone.channels == (16, 16, 16)
    assert backbone.strides == (14, 14, 14)
    first = 1 + networks[name].registers
    for height, width in (NATIVE, *OTHERS):
        images = random_images(height, width)
        layers, last = outputs_of(model, (images - backbone.mean) / backbone.std)
        with torch.no_grad():
            assert max(difference(backbone.tokens(images), layers)) < BOUND
            maps = backbone(images)
        want = last[:, first:].transpose(1, 2).unflatten(2, (height // 14, width // 14))
        assert max(difference(maps[-1:], [want])) < BOUND


def cubic(x):
    """The kernel of bicubic interpolation (Keys, 1981), a = -0.75."""
    x = np.abs(x)
    near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def weights_between(new, old, scale):
    """(new, old): what each old position gives to each new one; beyond an edge, its value goes on."""
    found = np.zeros((new, old))
    for i in range(new):
        place = (i + 0.5) / scale - 0.5
        for j in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            found[i, np.clip(j, 0, old - 1)] += cubic(place - j)
    return found


@pytest.mark.parametrize(
    ("name", "offset"), [("dino_vits8", 0.1), ("dinov2_vitb14", 0.1), ("vit_base_patch16_224", 0), ("dino_vitb16", 0.1)]
)
def test_position_embeddings_are_interpolated_as_by_their_publisher(name, offset, networks):
    backbone = backbones.create(name, weights="none")
    table = backbone.pos_embed.double().numpy()[0]
    rows, columns = (weights_between(n, 4, (n + offset) / 4) for n in (3, 7))
    expected = np.einsum("ia,jb,abc->ijc", rows, columns, table[1:].reshape(4, 4, 16)).reshape(21, 16)
    got = backbone.places(3, 7)[0]
    np.testing.assert_allclose(got[1:], expected, atol=1e-6)
    np.testing.assert_array_equal(got[0], table[0].astype(np.float32))
    assert backbone.places(4, 4) is backbone.pos_embed


# Of each, what the published file holds without a head; those of DINOv2 and DINOv3 hold a mask token too, and those of
# DINOv3, as `transformers` has them, no bias of keys.
PARAMETERS = {
    "dinov2_vits14": 22_056_576,
    "dinov2_vitb14": 86_580_480,
    "dinov2_vitl14": 304_368_640,
    "dinov2_vits14_reg": 22_058_112,
    "dinov2_vitb14_reg": 86_583_552,
    "dinov2_vitl14_reg": 304_372_736,
    "dinov3_vits16": 21_596_544,
    "dinov3_vitb16": 85_660_416,
    "dinov3_vitl16": 303_129_600,
    "dino_vits8": 21_670_272,
    "dino_vitb16": 85_798_656,
    "mae_vit_base_patch16": 85_798_656,
    "vit_base_patch16_224": 85_798_656,
}


def test_every_transformer_is_in_the_table():
    names = [name for name, module in backbones.REGISTRY.items() if module == "vitlite.backbones.vit"]
    assert sorted(names) == sorted(PARAMETERS) == sorted(vit.NETWORKS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_published_number_of_parameters(name):
    network = vit.NETWORKS[name]
    backbone = vit.VisionBackbone(name, network, [network.depth])  # memory that is not touched
    others = network.dim if name.startswith(("dinov2", "dinov3")) else 0
    others -= network.dim * network.depth if network.rotary else 0
    assert sum(parameter.numel() for parameter in backbone.parameters()) + others == PARAMETERS[name]
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def by_publisher(backbone):
    return {**backbone.state_dict(), "mask_token": torch.zeros(1, 16)}


def by_timm(backbone):
    """Registers have another name; the class token holds its own position, and pos_embed does not."""
    state = {key.replace("register_tokens", "reg_token"): value for key, value in backbone.state_dict().items()}
    if "reg_token" in state:
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    return {**state, "head.weight": torch.zeros(10, 16), "head.bias": torch.zeros(10)}


def by_dinov3(backbone):
    """Registers have another name, and the bias of keys is masked; its numbers mean nothing."""
    state = {key.replace("register_tokens", "storage_tokens"): value for key, value in backbone.state_dict().items()}
    for key in [key for key in state if key.endswith("qkv.bias")]:
        state[key] = state[key].clone()
        state[key][16:32] = 7.0
        state[f"{key}_mask"] = torch.full((48,), torch.nan)
    return {**state, "mask_token": torch.zeros(1, 16), "rope_embed.periods": torch.ones(2)}


def by_mae(backbone):
    decoder = {"mask_token": torch.zeros(1, 1, 16), "decoder_embed.bias": torch.ones(8)}
    return {"model": {**backbone.state_dict(), **decoder}}


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("dinov2_vits14", by_publisher),
        ("dinov2_vits14_reg", by_publisher),
        ("dinov2_vitb14_reg", by_timm),
        ("dino_vits8", by_timm),
        ("vit_base_patch16_224", by_timm),
        ("mae_vit_base_patch16", by_mae),
        ("dinov3_vits16", by_dinov3),
    ],
)
def test_the_names_of_publishers_and_timm(name, named, networks, tmp_path):
    source = scattered(backbones.create(name, weights="none", layers=[3]))
    if source.network.rotary:
        for block in source.blocks:
            block.attn.qkv.bias.data[16:32] = 0  # keys have none
    torch.save(named(source), tmp_path / "weights.pth")
    images = random_images(*OTHERS[0])
    loaded = backbones.create(name, weights=tmp_path / "weights.pth", layers=[3])
    assert max(difference(loaded(images), source(images))) < BOUND


@pytest.mark.parametrize("name", REFERENCES)
def test_the_names_of_modules_of_transformers_with_a_head_around(name, networks, tmp_path):
    """Version 5 calls parts of a module otherwise than in the files that it writes."""
    model = reference(name)
    model.save_pretrained(tmp_path)
    heads = {"Dinov2": "dinov2.", "Dinov2WithRegisters": "dinov2_with_registers.", "DINOv3ViT": ""}
    around = heads.get(REFERENCES[name][0], "vit.")
    state = {around + key: value for key, value in model.state_dict().items()}
    torch.save({**state, "classifier.bias": torch.zeros(2)}, tmp_path / "model.pth")
    images = random_images(*NATIVE)
    found = [backbones.create(name, weights=tmp_path / f"model.{kind}", layers=[2]) for kind in ("safetensors", "pth")]
    assert torch.equal(*(backbone(images)[0] for backbone in found))


def test_layers_are_those_asked_for_and_no_more_are_built(networks):
    every = backbones.create("dinov2_vits14_reg", weights="none", layers=(1, 2, 3))
    some = backbones.create("dinov2_vits14_reg", weights="none", layers=(1, 2))
    some.load_state_dict({key: value for key, value in every.state_dict().items() if "blocks.2." not in key})
    images = random_images(*NATIVE)
    assert len(some.blocks) == 2
    assert all(torch.equal(a, b) for a, b in zip(some(images), every(images)))


def test_four_layers_by_default():
    depths = {name: vit._checked(name, network, None) for name, network in vit.NETWORKS.items()}
    assert list(depths["dinov2_vits14"]) == [3, 6, 9, 12]
    assert list(depths["dinov2_vitl14"]) == [6, 12, 18, 24]


def test_an_image_of_other_sides_is_resized_to_whole_patches(networks):
    backbone = backbones.create("dino_vits8", weights="none", layers=[2])
    images = random_images(61, 80)
    resized = nn.functional.interpolate(images, size=(56, 84), mode="bilinear")
    assert torch.equal(backbone(images)[0], backbone(resized)[0])
    assert backbone(random_images(3, 5, batch=1))[0].shape == (1, 16, 1, 1)
    with pytest.raises(ValueError, match=r"images must be floating point \(B, 3, H, W\)"):
        backbone(images[0])


def test_kept_positions_follow_the_weights(networks):
    backbone = backbones.create("dinov2_vits14_reg", weights="none", layers=[2])
    images = random_images(*OTHERS[0])
    first, twin = backbone(images)[0], copy.deepcopy(backbone)
    twin(images)
    state = scattered(copy.deepcopy(backbone)).state_dict()
    around = nn.ModuleList([twin])
    around.load_state_dict({f"0.{key}": value for key, value in state.items()})
    backbone.load_state_dict(state)
    assert torch.equal(twin(images)[0], backbone(images)[0])
    assert not torch.equal(twin(images)[0], first)
    assert twin.double()(images.double())[0].dtype == torch.float64


@pytest.mark.parametrize("name", ["dinov2_vits14_reg", "dinov3_vits16"])
def test_an_exported_graph_holds_the_positions_as_numbers_and_takes_any_batch(name, networks):
    backbone = backbones.create(name, weights="none", layers=[1, 3])
    images = random_images(*OTHERS[0], batch=3)
    want = backbone(images)
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(backbone, (images[:2],), dynamic_shapes=shapes, strict=False)
    assert not any(word in str(program.graph) for word in ("upsample", "cos"))
    assert max(difference(program.module()(images), want)) < BOUND


def test_random_weights_follow_the_seed(networks):
    state = torch.get_rng_state()
    one, again, other = (backbones.create("dino_vits8", weights="none", seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    images = random_images(*NATIVE)
    assert torch.equal(one(images)[0], again(images)[0])
    assert not torch.equal(one(images)[0], other(images)[0])
    assert one.weights_source == "random (seed 1)"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": (0, 2)}, r"layers=0,2: dinov2_vits14 has blocks 1 to 3; give some, ascending"),
        ({"layers": (2, 4)}, r"layers=2,4: dinov2_vits14 has blocks 1 to 3"),
        ({"layers": (2, 1)}, r"layers=2,1: .* ascending"),
        ({"strides": (8, 16)}, r"strides=8,16: every map of dinov2_vits14 has stride 14; .* by layers"),
    ],
)
def test_layers_and_strides_that_do_not_exist(options, says, networks):
    with pytest.raises(UserError, match=says):
        backbones.create("dinov2_vits14", weights="none", **options)


def test_other_networks_have_no_layers():
    with pytest.raises(UserError, match=r"layers=3: resnet18 is no transformer; choose maps by strides"):
        backbones.create("resnet18", weights="none", layers=[3])


def test_dinov3_is_never_downloaded():
    with pytest.raises(UserError, match=r"weights=auto: dinov3_vitb16 is not downloaded, for its licence .* path"):
        backbones.create("dinov3_vitb16")
    assert backbones.whereabouts("dinov3_vitb16").startswith("only by path: from https://")


def test_a_file_of_another_network_is_refused(networks, tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save(backbones.create("dinov2_vits14", weights="none").state_dict(), path)
    with pytest.raises(UserError, match=r"do not fit dinov2_vits14_reg: 1 missing \(register_tokens\)"):
        backbones.create("dinov2_vits14_reg", weights=path)
    with pytest.raises(UserError, match=r"do not fit dino_vits8: 6 unknown \(blocks.0.ls1.gamma, "):
        backbones.create("dino_vits8", weights=path)
    monkeypatch.setitem(networks, "dinov2_vits14", replace(networks["dinov2_vits14"], depth=2, side=5))
    with pytest.raises(UserError, match=r"1 of another shape \(pos_embed .*; 14 unknown \(blocks\.2\."):
        backbones.create("dinov2_vits14", weights=path, layers=[1])


def test_knn_trains_and_predicts_with_a_file_of_transformers(networks, tmp_path, tiny_data):
    model = reference("dinov2_vits14_reg")
    model.save_pretrained(tmp_path)
    settings = {"backbone": "dinov2_vits14_reg", "weights": tmp_path / "model.safetensors", "layers": "1,3"}
    settings |= {"image_size": 64, "feature_size": 8, "bank": 50, "folds": 0, "score": "max", "places": "none"}
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    vitlite("train", "--method", "knn", "--data", tiny_data, "--out", tmp_path / "run", *options)
    (tmp_path / "model.safetensors").unlink()
    vitlite("predict", tmp_path / "run", tiny_data / "weave/test", "--out", tmp_path / "found")
