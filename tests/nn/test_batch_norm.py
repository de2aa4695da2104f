"""Batch norm of several processes is batch norm of all their images in one."""

import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

from vitlite.nn.batch_norm import BatchNorm2d, set_counts

COUNTS = (3, 2), (1, 0)  # images of each process


def random_images(count, channels=3):
    generator = torch.Generator().manual_seed(count)
    # Far from zero, where a variance from mean squares would be lost in float32.
    return 100 + torch.randn(count, channels, 4, 5, generator=generator)


def one_step(norm, x):
    """Output, gradient of the input and of the parameters of a loss that weighs every value differently."""
    x = x.clone().requires_grad_()
    y = norm(x)
    weights = torch.linspace(-1, 2, y[0].numel()).view_as(y[0])
    (y * weights * x.detach().sub(99)).sum().backward()
    return y.detach(), x.grad, norm.weight.grad, norm.bias.grad


def member(rank, size, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    for counts in COUNTS:
        whole, norm = random_images(sum(counts)), BatchNorm2d(3)
        start = sum(counts[:rank])
        if counts[rank]:
            found = one_step(norm, whole[start : start + counts[rank]])
        else:  # computes another's image for nothing, as the trainer's processes without one do
            set_counts(norm, False)
            norm(whole[:1].clone().requires_grad_()).mul(0).sum().backward()
            found = None
        torch.save((found, norm.state_dict()), f"{folder}/{counts}-{rank}.pt")
    distributed.destroy_process_group()
    if sys.platform == "linux":  # a thread that outlives the process group can abort the process at its end
        threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
        assert not [name for name in threads if "gloo" in name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes save."""
    folder = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(member, (2, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("counts", COUNTS)
def test_two_processes_are_one(folder, counts):
    plain = nn.BatchNorm2d(3)
    y, x_grad, weight_grad, bias_grad = one_step(plain, random_images(sum(counts)))
    saved = [torch.load(folder / f"{counts}-{rank}.pt", weights_only=True) for rank in range(2)]
    found = [part for part, _ in saved if part is not None]
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(torch.cat([part[0] for part in found]), y, **close)
    torch.testing.assert_close(torch.cat([part[1] for part in found]), x_grad, **close)
    torch.testing.assert_close(sum(part[2] for part in found), weight_grad, **close)
    torch.testing.assert_close(sum(part[3] for part in found), bias_grad, **close)
    for _, state in saved:
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5)


def test_alone_it_is_torchs():
    ours, plain = BatchNorm2d(3), nn.BatchNorm2d(3)
    assert torch.equal(ours(random_images(4)), plain(random_images(4)))
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(ours.eval()(random_images(2)), plain.eval()(random_images(2)))
