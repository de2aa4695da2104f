"""SIVT against the paper: parameters, Algorithm 1, losses, map and score, ablations."""

from dataclasses import replace

import pytest
import torch
from method_checks import count, tiny_config
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from vitlite.bench.sivt import plain_forward
from vitlite.methods.induction import SelfInduction, draw_split
from vitlite.methods.sivt import PAPER, SIVT, residuals

TINY = tiny_config("sivt", backbone="image", heads=2, encoder_depth=3)


def make(features=12, **changes):
    torch.manual_seed(0)
    return SelfInduction(replace(TINY, **changes), features).double()


def test_paper_parameters():
    """14.59 M: embedding, head, two position tables, induction tokens, 20 blocks, two norms; the CNN is not counted."""
    counted = count(SelfInduction(PAPER, 272 * PAPER.patch**2))
    assert counted == 14_595_248
    assert f"{counted / 1e6:.2f}" == "14.60" or f"{int(counted / 1e4) / 100:.2f}" == "14.59"


def test_paper_config():
    assert (PAPER.dim, PAPER.encoder_depth, PAPER.decoder_depth, PAPER.heads, PAPER.subsets) == (240, 12, 8, 8, 4)
    assert (PAPER.lr, PAPER.batch_size, PAPER.epochs, PAPER.precision) == (1e-4, 8, 400, "float32")
    assert PAPER.backbone == "efficientnet_b4"


def test_efficientnet_b4_gives_272_channels():
    method = SIVT(replace(PAPER, encoder_depth=1, decoder_depth=1), weights="none")
    assert sum(method.backbone.channels) == 272
    features = method.frozen(torch.rand(1, 3, 256, 256))
    assert features.shape == (1, 272, 32, 32)
    trained = {name.split(".")[0] for name, p in method.named_parameters() if p.requires_grad}
    assert trained == {"transformer"}


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("subsets", [2, 3, 4, 5, 7, 8, 16])
def test_equals_algorithm_1(subsets, depth):
    """The savings change nothing: the same output and gradients as every sequence through every block in full."""
    net = make(subsets=subsets, encoder_depth=depth)
    patches = torch.randn(2, 16, 12, dtype=torch.double)
    order = torch.randperm(16)
    # The plain form splits unequal subsets with its own rule, so hand it ours.
    runs = [order[net.induced[i, :, 0]] for i in range(subsets)]

    class Order:
        def tensor_split(self, n):
            assert n == subsets
            return runs

    plain, ours = plain_forward(net, patches, Order()), net(patches, order)
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)
    names, parameters = zip(*net.named_parameters())
    for name, a, b in zip(
        names,
        torch.autograd.grad(ours.square().sum(), parameters),
        torch.autograd.grad(plain.square().sum(), parameters),
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=name)


def test_subsets_are_disjoint_and_complete():
    for subsets in range(2, 9):
        net = make(subsets=subsets)
        sizes = net.induced[:, :, 0].sum(1)
        assert net.induced.sum(0).eq(1).all()
        assert sizes.max() - sizes.min() <= 1
        assert sorted(net.slot_of.unique().tolist()) == sorted(net.slot_of.tolist())


def encoder_sees_itself(net, order):
    """(L,) whether a token's latent depends on the token's own value."""
    x = torch.randn(1, 16, 16, dtype=torch.double)
    encode = (lambda t: net.encode_induced(t, order)) if net.self_induction else net.encode_plain
    jacobian = torch.autograd.functional.jacobian(lambda t: encode(t)[0].sum(-1), x)[:, 0].abs().sum(-1)
    return jacobian.diagonal() > 1e-12


def test_no_token_is_reconstructed_from_its_own_subset():
    order = torch.randperm(16)
    assert not encoder_sees_itself(make(), order).any()
    assert encoder_sees_itself(make(induction=False), order).all()


def test_residuals_are_equation_2():
    a, b = torch.randn(2, 5, 3, 3), torch.randn(2, 5, 3, 3)
    l2, cosine = residuals(a, b)
    assert torch.allclose(l2, (a - b).norm(dim=1) ** 2)
    expected = 1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    assert torch.allclose(cosine, expected, atol=1e-6)


def test_loss_is_the_weighted_sum():
    method = SIVT(replace(TINY, cosine_weight=3.0))
    terms = method.loss(method.frozen(torch.rand(2, 3, 64, 64)))
    torch.testing.assert_close(terms["loss"], terms["l2"] + 3.0 * terms["cosine"])


def test_map_and_score_are_equation_3():
    method = SIVT(replace(TINY, normalize="none", edge="mirror", bank=0)).eval()
    images = torch.rand(2, 3, 64, 64)
    maps, scores = method.anomaly(images)
    features = method.frozen(images)
    with torch.no_grad():
        l2, cosine = residuals(features, method.reconstruct(features, method.split))
    plain = F.interpolate((l2 * cosine)[:, None], size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    smooth = torch.stack([torch.from_numpy(gaussian_filter(m.double().numpy(), 1.0)) for m in plain])
    torch.testing.assert_close(maps.double(), smooth, rtol=1e-4, atol=1e-4 * float(smooth.max()))
    torch.testing.assert_close(scores.double(), smooth.flatten(1).std(1, correction=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "root"), [("product", 4), ("l2", 2), ("cosine", 2)])
def test_a_bank_gives_the_map_one_factor_more(kind, root):
    """The distance from the nearest of the vectors that were kept, times the residuals' root that is a distance."""
    method = SIVT(replace(TINY, map=kind, bank=10_000)).eval()
    good, features = torch.randn(2, 192, 8, 8), torch.randn(1, 192, 8, 8)
    method.fit([good])
    with torch.no_grad():
        target, output = method.feature_maps(features)
        l2, cosine = residuals(target, output)
        values = method.values(features)
    padded = F.pad(torch.cat([method.normalized(good), target]), [1] * 4, mode="replicate")
    means = sum(padded[..., y : y + 8, x : x + 8] for y in range(3) for x in range(3)) / 9
    rows = means.flatten(2).transpose(1, 2).double()
    distance = torch.cdist(rows[2], rows[:2].flatten(0, 1)).amin(1).view(1, 8, 8).float()
    plain = {"product": l2 * cosine, "l2": l2, "cosine": cosine}[kind] ** (1 / root)
    torch.testing.assert_close(values, method.smooth(plain * distance), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.parts(features)["distance from good features"], method.smooth(distance))


def test_without_a_bank_nothing_of_it_is_kept():
    """So that the checkpoints of the paper's preset, and those of before, stay as they are."""
    assert "bank" in SIVT(TINY).state_dict()
    assert "bank" not in SIVT(replace(TINY, bank=0)).state_dict()
    assert PAPER.bank == 0


def test_an_image_that_is_anomalous_everywhere_scores_high():
    """By the deviation of its map it would not."""
    method = SIVT(replace(TINY, score="auto")).eval()
    method.fit([torch.randn(2, 192, 8, 8)])
    good, everywhere = torch.randn(2, 1, 192, 8, 8)
    assert (method.score_name, SIVT(replace(TINY, score="auto", bank=0)).score_name) == ("rms", "std")
    with torch.no_grad():
        assert method.anomaly_from(20 + 5 * everywhere)[1] > 5 * method.anomaly_from(good)[1]


def test_every_step_draws_a_split():
    method = SIVT(TINY)
    features = method.frozen(torch.rand(1, 3, 64, 64))
    assert method.loss(features)["loss"] != method.loss(features)["loss"]


def test_channel_statistics():
    method = SIVT(TINY)
    features = [torch.randn(3, 192, 8, 8) * 5 + 2 for _ in range(2)]
    features[0][:, 7], features[1][:, 7] = 3.0, 3.0
    method.fit(iter(features))
    normal = method.normalized(torch.cat(features))
    assert normal[:, 7].abs().max() < 1e-5
    rest = torch.cat([normal[:, :7], normal[:, 8:]], 1)
    assert rest.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(rest.std((0, 2, 3), correction=0), torch.ones(191), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_squares_of_a_split_stay_together(block):
    order = draw_split((7, 10), block, torch.device("cpu"), torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(70))
    # The squares lie on one of block x block grids: on it, the places of each whole square are neighbours in the order.
    place = torch.argsort(order).reshape(7, 10)
    grids = [(down, right) for down in range(block) for right in range(block)]
    squares = [place[down:, right:].unfold(0, block, block).unfold(1, block, block).flatten(2) for down, right in grids]
    assert sum(bool((one.amax(2) - one.amin(2) == block**2 - 1).all()) for one in squares) == 1


def test_scoring_may_split_by_other_squares():
    """The same weights with another split of scoring; training splits single tokens in any case."""
    single, squares = SIVT(TINY), SIVT(replace(TINY, split_block=2))
    assert not torch.equal(single.split, squares.split)
    assert torch.equal(squares.split, draw_split((4, 4), 2, torch.device("cpu"), torch.Generator().manual_seed(0)))
    assert squares.block == 1
