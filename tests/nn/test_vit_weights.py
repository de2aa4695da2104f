"""ViT and MAE weights: agreement with transformers on the same checkpoint, interpolation, files that do not fit."""

import re

import pytest
import torch
from torch.nn import functional as F

from vitlite.backbones import checkpoint, published, transformer_weights
from vitlite.backbones.transformer_weights import NORMALIZATION, PUBLISHED, load_mae, load_vit, resize_positions
from vitlite.errors import UserError
from vitlite.nn.mae import MaskedAutoencoder
from vitlite.nn.vit import VisionTransformer

VIT, MAE = "vit_base_patch16_384", "mae_vit_base_patch16"
DIM, DEPTH, HEADS, PATCH = 24, 3, 3, 8
SMALL = {"dim": 16, "depth": 2, "heads": 2}


def vit_tensors(size=32, seed=0):
    """A checkpoint with timm's public names, written out here so that ours cannot drift from them unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "cls_token": (1, 1, DIM),
        "pos_embed": (1, 1 + (size // PATCH) ** 2, DIM),
        "patch_embed.proj.weight": (DIM, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (DIM,),
        **block_shapes("blocks", DEPTH, DIM),
        "norm.weight": (DIM,),
        "norm.bias": (DIM,),
    }
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def block_shapes(prefix, depth, dim):
    layers = {"norm1": (dim,), "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "norm2": (dim,)}
    layers |= {"mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    parts = {f"{name}.weight": shape for name, shape in layers.items()}
    parts |= {f"{name}.bias": shape[:1] for name, shape in layers.items()}
    return {f"{prefix}.{i}.{name}": shape for i in range(depth) for name, shape in parts.items()}


def mae_tensors(size=32, seed=0):
    """A checkpoint with the names of facebookresearch/mae, decoder included."""
    generator = torch.Generator().manual_seed(seed + 1)
    dim, depth = SMALL["dim"], SMALL["depth"]
    shapes = {
        "mask_token": (1, 1, dim),
        "decoder_pos_embed": (1, 1 + (size // PATCH) ** 2, dim),
        "decoder_embed.weight": (dim, DIM),
        "decoder_embed.bias": (dim,),
        **block_shapes("decoder_blocks", depth, dim),
        "decoder_norm.weight": (dim,),
        "decoder_norm.bias": (dim,),
        "decoder_pred.weight": (3 * PATCH**2, dim),
        "decoder_pred.bias": (3 * PATCH**2,),
    }
    decoder = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**vit_tensors(size, seed), **decoder}


def vit(size=32, **changes):
    return VisionTransformer(size, **{"patch": PATCH, "dim": DIM, "depth": DEPTH, "heads": HEADS, **changes})


def mae(size=32):
    small = {f"decoder_{name}": value for name, value in SMALL.items()}
    return MaskedAutoencoder(size, patch=PATCH, dim=DIM, depth=DEPTH, heads=HEADS, **small)


def save(content, path):
    torch.save(content, path)
    return path


def transformers_names(tensors):
    """A checkpoint's tensors under the names of transformers' ViTMAEForPreTraining."""
    renamed = {}
    for key, value in tensors.items():
        key, decoder = re.subn("^decoder_", "", key)
        key = key.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after")
        key = re.sub("^norm", "decoder_norm" if decoder else "layernorm", key)
        key = re.sub("^blocks", "decoder_layers" if decoder else "layers", key)
        key = re.sub("^(embed|pred|pos_embed)", r"decoder_\1", key) if decoder else key
        key = key.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        if not decoder:
            key = key.replace("pos_embed", "embeddings.position_embeddings").replace(
                "cls_token", "embeddings.cls_token"
            )
        key = key.replace("attn.proj", "attention.o_proj")
        key = ("decoder." if decoder or key == "mask_token" else "vit.") + key
        if "attn.qkv" in key:
            for name, part in zip("qkv", value.chunk(3)):
                renamed[key.replace("attn.qkv", f"attention.{name}_proj")] = part
        else:
            renamed[key] = value
    return renamed


def reference_config(kind, size=32):
    transformers = pytest.importorskip("transformers", minversion="5")
    sizes = {"num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "hidden_size": DIM, "intermediate_size": 4 * DIM}
    dim, depth, heads = SMALL.values()
    decoder = {
        "decoder_hidden_size": dim,
        "decoder_num_hidden_layers": depth,
        "decoder_num_attention_heads": heads,
        "decoder_intermediate_size": 4 * dim,
    }
    extra = decoder if kind == "ViTMAEConfig" else {}
    return transformers, getattr(transformers, kind)(
        image_size=size, patch_size=PATCH, layer_norm_eps=1e-6, **sizes, **extra
    )


def difference(got, want):
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("size", [32, 48])
def test_vit_agrees_with_transformers(size, tmp_path):
    """Also at another size than the checkpoint's, where both interpolate the position table."""
    transformers, config = reference_config("ViTConfig")
    tensors = vit_tensors()
    reference = transformers.ViTModel(config, add_pooling_layer=False).eval()
    renamed = {key.removeprefix("vit."): value for key, value in transformers_names(tensors).items()}
    reference.load_state_dict(renamed)
    ours = vit(size)
    load_vit(
        ours,
        VIT,
        save({**tensors, "head.weight": torch.zeros(5, DIM), "head.bias": torch.zeros(5)}, tmp_path / "w.pth"),
    )
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        want = reference(images, interpolate_pos_encoding=size != 32).last_hidden_state
        assert difference(ours.encode_all(ours.embed(images)), want) < 1e-5
        assert difference(ours(images), want[:, 1:]) < 1e-5


@pytest.mark.parametrize("normalized", [False, True])
def test_mae_agrees_with_transformers(normalized, tmp_path):
    """Encoder tokens, reconstructed patches and the loss, with the same noise for the mask."""
    transformers, config = reference_config("ViTMAEConfig")
    config.norm_pix_loss = normalized
    tensors = mae_tensors()
    reference = transformers.ViTMAEForPreTraining(config).eval()
    reference.load_state_dict(transformers_names(tensors))
    ours = mae()
    load_mae(ours, MAE, save({"model": tensors, "epoch": 3}, tmp_path / "mae_visualize_vit_base.pth"))
    images, noise = torch.randn(3, 3, 32, 32), torch.rand(3, 16)
    with torch.no_grad():
        want = reference(images, noise=noise)
        order = noise.argsort(dim=1)
        assert difference(ours.reconstruct_hidden(images, order, 4), want.logits) < 1e-5
        loss = ours.loss(images, 0.75, normalized, noise=noise)
    assert abs(float(loss - want.loss)) < 1e-5 * float(want.loss)


def test_published_sizes():
    """timm's vit_base_patch16_384 has 86 859 496 weights, 769 000 of them in the head; MAE's tables are 197 long."""
    with torch.device("meta"):
        encoder, autoencoder = VisionTransformer(384), MaskedAutoencoder(224, dim=768, depth=12, heads=12)
    assert sum(p.numel() for p in encoder.parameters()) == 86_859_496 - 769_000
    assert autoencoder.encoder.pos_embed.shape == (1, 197, 768)
    assert autoencoder.decoder.pos_embed.shape == (1, 197, 512)


def test_files_with_and_without_decoder(tmp_path):
    full, part = mae_tensors(), vit_tensors(seed=5)
    ours = mae()
    load_mae(ours, MAE, save({"model": full}, tmp_path / "mae_pretrain_vit_base_full.pth"))
    assert torch.equal(ours.decoder.pred.weight, full["decoder_pred.weight"])
    assert torch.equal(ours.decoder.mask_token, full["mask_token"])
    assert ours.weights_source == f"file {tmp_path / 'mae_pretrain_vit_base_full.pth'}"
    load_mae(ours, MAE, save({"model": part}, tmp_path / "mae_pretrain_vit_base.pth"))
    assert torch.equal(ours.encoder.norm.weight, part["norm.weight"])
    assert torch.equal(ours.decoder.pred.weight, full["decoder_pred.weight"])  # left as it was
    assert ours.weights_source.endswith("mae_pretrain_vit_base.pth, without decoder")
    encoder = vit()
    load_vit(encoder, MAE, tmp_path / "mae_pretrain_vit_base_full.pth")  # the decoder is not asked for
    assert torch.equal(encoder.blocks[2].mlp.fc2.bias, full["blocks.2.mlp.fc2.bias"])


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    tensors = vit_tensors()
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    ours = vit()
    load_vit(ours, VIT, tmp_path / "model.safetensors")
    assert all(torch.equal(value, tensors[key]) for key, value in ours.state_dict().items())


def test_positions_keep_the_class_token_and_the_layout():
    row = torch.linspace(0, 1, 6)
    grid = torch.stack([row[:, None].expand(6, 6), row[None].expand(6, 6)], dim=-1).reshape(1, 36, 2)
    table = torch.cat([torch.full((1, 1, 2), 7.0), grid], dim=1)
    small = resize_positions(table, (1, 10, 2))
    assert torch.equal(small[:, :1], table[:, :1])
    rows, columns = small[0, 1:].unflatten(0, (3, 3)).unbind(-1)
    assert torch.allclose(rows, rows[:, :1].expand(3, 3))
    assert torch.allclose(columns, columns[:1].expand(3, 3))
    assert (rows[:, 0].diff() > 0.2).all()
    assert torch.allclose(rows.T, columns)
    want = F.interpolate(grid.unflatten(1, (6, 6)).permute(0, 3, 1, 2), (3, 3), mode="bicubic", align_corners=False)
    assert torch.equal(resize_positions(grid, (1, 9, 2)), want.flatten(2).transpose(1, 2))
    wide = F.interpolate(grid.unflatten(1, (6, 6)).permute(0, 3, 1, 2), (2, 5), mode="bicubic", align_corners=False)
    assert torch.equal(resize_positions(table, (1, 11, 2), (2, 5))[:, 1:], wide.flatten(2).transpose(1, 2))
    assert resize_positions(table, table.shape) is table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.1.attn.qkv.bias"), r"1 missing \(blocks.1.attn.qkv.bias\)"),
        (lambda t: t.update({"blocks.3.norm1.bias": torch.zeros(DIM)}), r"1 unknown \(blocks.3.norm1.bias\)"),
        (lambda t: t.update({"pos_embed": torch.zeros(1, 16, DIM)}), r"of another shape \(pos_embed \(1, 16, 24\)"),
        (lambda t: t.update({"pos_embed": torch.zeros(1, 24, DIM)}), r"of another shape \(pos_embed \(1, 24, 24\)"),
        (lambda t: t.update({"norm.bias": torch.zeros(7)}), r"norm.bias \(7,\) instead of \(24,\)"),
    ],
)
def test_what_does_not_fit_is_listed(change, message, tmp_path):
    tensors = vit_tensors()
    change(tensors)
    ours = vit()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        load_vit(ours, VIT, save(tensors, tmp_path / "w.pth"))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "w.pth") in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def test_another_width_and_a_half_decoder(tmp_path):
    path = save(mae_tensors(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"of another shape \(cls_token \(1, 1, 24\) instead of \(1, 1, 12\)"):
        load_vit(vit(dim=12), MAE, path)
    tensors = mae_tensors()
    del tensors["decoder_pred.bias"]
    with pytest.raises(UserError, match=r"1 missing \(decoder_pred.bias\)"):
        load_mae(mae(), MAE, save(tensors, path))


def test_where_weights_come_from(tmp_path, monkeypatch):
    monkeypatch.setenv("VITLITE_CACHE", str(tmp_path))
    monkeypatch.setattr(published, "TIMEOUT", 0.001)
    ours = vit()
    load_vit(ours, VIT, "none")
    assert ours.weights_source == "random"
    with pytest.raises(UserError, match="unknown transformer 'vit_tiny'"):
        load_vit(ours, "vit_tiny", "auto")
    with pytest.raises(UserError, match="no such file"):
        load_vit(ours, VIT, tmp_path / "nothing.pth")
    with pytest.raises(UserError, match="give 'auto', 'none' or the path"):
        load_vit(ours, VIT, "")
    assert "not here" in transformer_weights.whereabouts(VIT)

    cached = PUBLISHED[MAE].published.cached
    save({"model": mae_tensors()}, cached)
    autoencoder = mae()
    load_mae(autoencoder, MAE, "auto")
    assert autoencoder.weights_source == f"file {cached}" == transformer_weights.whereabouts(MAE)
    assert checkpoint.read(cached).keys() == mae_tensors().keys()


def test_auto_downloads_into_a_folder_of_its_own(tmp_path, monkeypatch):
    """timm's file is called model.safetensors, as thousands of others are."""
    monkeypatch.setenv("VITLITE_CACHE", str(tmp_path))
    asked = []

    def fetch(address, folder, sha256):
        folder.mkdir(parents=True)
        asked.append(address)
        return save(vit_tensors(), folder / "w.pth")

    monkeypatch.setattr(published, "fetch", fetch)
    ours = vit()
    load_vit(ours, VIT, "auto")
    assert asked == [PUBLISHED[VIT].published.address]
    assert ours.weights_source == f"download {asked[0]}"
    assert (tmp_path / "vit_base_patch16_384.augreg_in21k_ft_in1k" / "w.pth").is_file()


def test_normalization():
    assert NORMALIZATION[VIT] == ((0.5,) * 3, (0.5,) * 3)
    assert NORMALIZATION["mae_vit_large_patch16"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
