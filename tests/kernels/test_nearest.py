"""nearest against its numpy oracle: which rows, how far, ties, gradients, and a bank that is laid out once."""

import numpy as np
import pytest
import torch
from contract import assert_same_for_any_number_of_threads

from vitlite.kernels import Bank, nearest
from vitlite.kernels.nearest import reference
from vitlite.kernels.nearest.reference import nearest_grad_numpy, nearest_numpy, nearest_torch

# Queries, rows of the bank, channels, neighbours.
SHAPES = [(1, 1, 1, 1), (3, 7, 30, 7), (40, 100, 48, 3), (30, 500, 17, 1), (70, 33, 512, 2), (29, 40, 900, 5)]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def problem(queries, rows, channels, k, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = (queries, channels), (rows, channels), (queries, k)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def run(q, bank, grad, **options):
    q, bank = q.detach().requires_grad_(), bank.detach().requires_grad_()
    distances, indices = nearest(q, bank, k=grad.shape[1], **options)
    return [distances.detach(), indices, *torch.autograd.grad(distances, (q, bank), grad.to(distances))]


def oracle(q, bank, grad):
    arrays = [a.detach().cpu().double().numpy() for a in (q, bank, grad)]
    found = nearest_numpy(*arrays[:2], grad.shape[1])
    return [torch.from_numpy(a) for a in (*found, *nearest_grad_numpy(arrays[2], *arrays[:2], grad.shape[1]))]


def assert_right(found, expected, dtype):
    distances, indices, *grads = found
    torch.testing.assert_close(indices, expected[1])
    for f, e in zip((distances, *grads), (expected[0], *expected[2:])):
        atol = 20 * torch.finfo(dtype).eps * e.abs().max().item()
        torch.testing.assert_close(f.double(), e, rtol=0, atol=atol)


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_distances_and_gradients_are_those_of_the_oracle(level, shape, dtype):
    arguments = problem(*shape, dtype)
    expected = oracle(*arguments)
    for backend in ("cpp", "eager"):
        assert_right(run(*arguments, backend=backend), expected, dtype)
    found = nearest(arguments[0], Bank(arguments[1]), k=shape[3])
    torch.testing.assert_close(found[1], expected[1])
    torch.testing.assert_close(found[0].double(), expected[0], rtol=0, atol=20 * torch.finfo(dtype).eps * 40)


def whole(*shape, seed=0):
    """Small whole numbers, whose products and distances are exact: many ties."""
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("backend", ["cpp", "eager"])
def test_of_equal_distances_the_lower_index_comes_first(compiled, backend):
    for queries, rows, k in ((50, 300, 1), (50, 300, 9), (5, 40, 40)):
        q, bank = whole(queries, 3), whole(rows, 3, seed=1)
        right = nearest_numpy(q.numpy(), bank.numpy(), k)
        for given in (bank, Bank(bank)):
            distances, indices = nearest(q, given, k=k, backend=backend)
            np.testing.assert_array_equal(indices, right[1])
            np.testing.assert_allclose(distances, right[0], rtol=1e-6)


def test_a_row_of_the_bank_has_distance_zero_to_itself_and_no_gradient(level):
    """|q|^2 - 2 q b + |b|^2 in float32 would leave a distance of 1 here."""
    bank = 1000 * torch.randn(60, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    distances, indices = nearest(bank, bank)
    assert (distances == 0).all()
    assert torch.equal(indices[:, 0], torch.arange(60))
    assert (torch.autograd.grad(distances.sum(), bank)[0] == 0).all()


@pytest.mark.parametrize("backend", ["cpp", "eager"])
def test_what_is_not_a_number_comes_last(compiled, backend):
    q, bank, _ = problem(40, 9, 5, 1)
    bank[2, 3] = float("nan")
    q[7, 1] = float("nan")
    distances, indices = nearest(q, bank, k=9, backend=backend)
    spoiled = torch.arange(40) == 7
    assert (indices[~spoiled, -1] == 2).all()
    assert torch.equal(distances.isnan().sum(1), torch.where(spoiled, 9, 1))
    assert torch.equal(indices[7], torch.arange(9))
    assert (nearest(q, bank, backend=backend)[1][~spoiled] != 2).all()


def hard_to_find(name):
    """Queries and a bank of at least 256 rows, with which a search in integers begins."""
    q, bank, _ = problem(90, 700, 50, 1)
    if name == "far from the origin":
        # In whole numbers, which stay exact; float32 would compare by differences of |b|^2 / 2 = 2e9.
        return 1000 + (4 * q).round(), 1000 + (4 * bank).round()
    if name == "equal rows":
        bank = bank[:3].repeat(240, 1)
    elif name == "near rows":
        bank = bank[:1] + 1e-3 * bank
    elif name == "rows of the bank":
        q = bank[5:95].clone()
    elif name == "very different sizes":
        bank, q = bank * torch.logspace(-3, 3, 700)[:, None], q * torch.logspace(-3, 3, 90)[:, None]
    elif name == "one number":
        q, bank = torch.ones(90, 50), torch.ones(700, 50)
    elif name == "no fours":
        q, bank = q[:, :1].contiguous(), bank[:, :1].contiguous()
    elif name == "many channels":
        q, bank, _ = problem(40, 300, 2050, 1)
    return q, bank


@pytest.mark.parametrize(
    "name",
    [
        "noise",
        "far from the origin",
        "equal rows",
        "near rows",
        "rows of the bank",
        "very different sizes",
        "one number",
        "no fours",
        "many channels",
    ],
)
def test_a_bank_that_is_laid_out_finds_what_the_oracle_finds(level, name):
    """Where the processor has the products: in integers first, and then among what rounding leaves open."""
    q, bank = hard_to_find(name)
    expected = nearest_numpy(q.numpy(), bank.numpy())
    distances, indices = nearest(q, Bank(bank))
    found = np.linalg.norm(q.double().numpy() - bank.double().numpy()[indices[:, 0]], axis=1)
    np.testing.assert_allclose(distances[:, 0], found, rtol=1e-6, atol=1e-30)
    # Which of two is nearer is open if their squared distances differ by less than the rounding of the squares.
    squares = np.square(q.double().numpy()).sum(1) + np.square(bank.double().numpy()[expected[1][:, 0]]).sum(1)
    assert (found**2 <= expected[0][:, 0] ** 2 + 1e-6 * squares).all()
    if name in ("noise", "equal rows", "rows of the bank", "one number"):
        np.testing.assert_array_equal(indices, expected[1])


def test_what_is_not_a_number_comes_last_in_a_bank_that_is_laid_out(level):
    q, bank, _ = problem(90, 700, 20, 1)
    right = nearest_numpy(q.numpy(), bank.numpy())[1]
    q[7, 1], q[8, 2], q[9, 3] = float("nan"), float("inf"), 1e30
    usual = (torch.arange(90) < 7) | (torch.arange(90) > 9)
    distances, indices = nearest(q, Bank(bank))
    np.testing.assert_array_equal(indices[usual], right[usual])
    assert indices[7, 0] == 0
    assert distances[7].isnan()
    assert distances[8].isinf()
    for wrong in (float("nan"), float("inf"), 1e30):
        spoiled = bank.clone()
        spoiled[right[0, 0], 3] = wrong
        distances, indices = nearest(q[usual], Bank(spoiled))
        assert (indices != right[0, 0]).all()
        assert distances.isfinite().all()


def test_same_result_for_any_number_of_threads_and_parts_of_the_bank(compiled):
    if torch.ops.vitlite.isa_level() == 0:
        pytest.skip("the matrix products of torch differ with the number of threads")
    for queries in (30, 200):
        arguments = problem(queries, 700, 20, 4)
        assert_same_for_any_number_of_threads(lambda a=arguments: run(*a))
        bank = Bank(arguments[1])
        assert_same_for_any_number_of_threads(lambda q=arguments[0], b=bank: list(nearest(q, b)))


def test_blocks_of_the_matrix_that_is_never_whole(compiled, monkeypatch):
    """Few queries, for which torch multiplies, on more rows than a block has; and eager torch by three queries."""
    arguments = problem(5, 20_000, 3, 4)
    expected = oracle(*arguments)
    assert_right(run(*arguments, backend="cpp"), expected, torch.float32)
    monkeypatch.setattr(reference, "BLOCK", 60_000)
    assert_right([*nearest_torch(*arguments[:2], 4), *expected[2:]], expected, torch.float32)


def test_indices_under_compile_and_autocast(compiled):
    q, bank, _ = problem(40, 60, 8, 3)
    right = nearest(q, bank, k=3)[1]
    for given in (bank, Bank(bank)):
        found = torch.compile(lambda q, b: nearest(q, b, k=3), fullgraph=True, backend="aot_eager")(q, given)
        assert torch.equal(found[1], right)
    for half in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=half):
            distances, indices = nearest(q, bank, k=3)
        assert torch.equal(indices, right)
        assert distances.dtype == torch.float32
        assert nearest(q.to(half), bank.to(half))[1].dtype == torch.int64


def test_a_bank_of_another_instruction_set_is_laid_out_again(compiled):
    best = torch.ops.vitlite.isa_level()
    q, rows, _ = problem(50, 90, 33, 2)
    bank, right = Bank(rows), nearest(q, rows, k=2)
    try:
        for lower in range(best):
            torch.ops.vitlite.isa_level(lower)
            found = nearest(q, bank, k=2)
            assert torch.equal(found[1], right[1])
            torch.testing.assert_close(found[0], right[0])
    finally:
        torch.ops.vitlite.isa_level(best)


def test_a_bank_passes_the_gradient_of_the_queries_and_keeps_its_rows(compiled):
    q, rows, grad = problem(40, 50, 6, 2)
    bank = Bank(rows)
    assert_right([*run(q, rows, grad)[:2], *run(q, rows, grad)[2:]], oracle(q, rows, grad), torch.float32)
    leaf = q.clone().requires_grad_()
    distances, _ = nearest(leaf, bank, k=2)
    torch.testing.assert_close(torch.autograd.grad(distances, leaf, grad)[0], run(q, rows, grad)[2])
    rows.zero_()  # the bank has its own
    assert nearest(q, bank)[0].min() > 0
    with pytest.raises(ValueError, match=r"^rows: shape \(0, 4\) holds nothing"):
        Bank(torch.rand(0, 4))
