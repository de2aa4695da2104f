"""Every Triton kernel compiles ahead of time, without a GPU, at the shapes that the methods use, spills nothing, and
takes no more shared memory than consumers' GPUs have.

The launches are recorded from the launchers themselves, so that what is compiled is what runs. Registers, shared memory
and spills of each kernel are written to build/triton-resources.txt.
"""

from pathlib import Path

import pytest
import torch
from triton_calls import DOUBLE, HALF, SINGLE, attention, gmm, linear, memory, nearest, ssim

from vitlite.kernels import _triton

triton = pytest.importorskip("triton")
ahead = pytest.importorskip("triton_ahead")

if _triton.interpreted():
    pytest.skip("kernels that are interpreted cannot be compiled", allow_module_level=True)

REPORT = Path(__file__).parents[2] / "build" / "triton-resources.txt"
# Bytes of shared memory for a program on GPUs of sm_86, sm_89 and sm_120, the least that any of ours have.
LEAST_SHARED = 99 * 1024
# Bytes a thread. The assembler that comes with Triton 3.6 spills 4 of one kernel for sm_90 and, for sm_100, up to 20 of
# five kernels and 196 of one in float64.
SPILLED_AT_MOST = 200 if triton.__version__.startswith("3.6.") else 0


# SIVT: heads of 30; ViT-B at 384 and ViT at 512 with patches of 16: 577 and 1025 tokens; ANoViT and MEMCA: heads of 96.
QUICK = [
    (attention, (4, 12, 577, 64, HALF)),
    (attention, (64, 8, 50, 30, SINGLE)),
    (memory, (4608, 2000, 768, HALF)),
    (memory, (4608, 2000, 768, SINGLE)),
    (memory, (784, 500, 768, HALF)),
    (nearest, (3136, 20_000, 384, 1, HALF)),
    (nearest, (3136, 20_000, 384, 1, SINGLE)),
    (nearest, (3136, 20_000, 384, 9, SINGLE)),
    (ssim, (16, 3, 256, 11, True, SINGLE)),
    (gmm, (4608, 150, 512, False, SINGLE)),
    (linear, (4608, 150, 512, 512, True, HALF)),
    (linear, (784, 150, 512, 512, True, SINGLE)),
]
MORE = [
    (attention, (4, 12, 577, 64, SINGLE)),
    (attention, (4, 16, 1025, 64, torch.float16)),
    (attention, (64, 8, 50, 30, HALF)),
    (attention, (8, 8, 196, 96, HALF)),
    (attention, (8, 8, 196, 96, SINGLE)),
    (attention, (8, 3, 196, 24, SINGLE)),
    (attention, (2, 4, 300, 128, HALF)),
    (attention, (2, 4, 300, 256, HALF)),
    (attention, (2, 4, 300, 80, HALF)),
    (attention, (1, 1, 17, 30, DOUBLE)),
    (attention, (1, 1, 1, 1, SINGLE)),
    (memory, (784, 500, 768, SINGLE)),
    (memory, (4608, 2000, 768, torch.float16)),
    (memory, (784, 500, 768, torch.float16)),
    (memory, (576, 50, 30, SINGLE)),
    (memory, (9, 20, 33, DOUBLE)),
    (memory, (1, 1, 1, SINGLE)),
    (nearest, (3136, 20_000, 384, 9, torch.float16)),
    (nearest, (1024, 10_000, 270, 1, HALF)),
    (nearest, (1024, 10_000, 270, 1, SINGLE)),
    (nearest, (9, 20, 33, 2, DOUBLE)),
    (nearest, (1, 1, 1, 1, SINGLE)),
    (ssim, (16, 3, 256, 11, False, HALF)),
    (ssim, (2, 1, 64, 25, True, SINGLE)),
    (ssim, (1, 1, 11, 7, False, DOUBLE)),
    (ssim, (1, 1, 1, 1, True, SINGLE)),
    (gmm, (4608, 150, 512, True, HALF)),
    (gmm, (9, 20, 2100, True, SINGLE)),
    (gmm, (5, 33, 17, False, DOUBLE)),
    (gmm, (1, 1, 1, False, SINGLE)),
    (linear, (4608, 150, 512, 512, False, torch.float16)),
    (linear, (20, 5, 30, 60, True, SINGLE)),
    (linear, (6, 3, 17, 8, True, DOUBLE)),
    (linear, (5000, 150, 512, 512, True, DOUBLE)),
]


@pytest.fixture(scope="module")
def report():
    """Lines that are written at the end; those of kernels that this run did not compile stay."""
    lines = {}
    yield lines
    before = REPORT.read_text().splitlines() if REPORT.exists() else []
    lines = {line.split(": ")[0]: line for line in before} | lines
    try:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text("\n".join(line for _, line in sorted(lines.items())) + "\n")
    except OSError:
        pass  # the folder need not be writable


def assert_compiles(call, arguments, capability, report):
    with _triton.recording() as launches:
        call(*arguments)
    assert launches
    what = ", ".join(str(a).removeprefix("torch.") for a in arguments)
    seen, wrong = set(), []
    for launch in launches:
        key = launch.kernel.__name__, str(sorted(launch.constants.items(), key=str))
        if key in seen:
            continue
        seen.add(key)
        used = ahead.resources(ahead.compile_launch(launch, capability))
        mode = f" mode {launch.constants['MODE']}" if "MODE" in launch.constants else ""
        name = f"{call.__name__}({what}) {launch.kernel.__name__}{mode} sm_{capability} triton {triton.__version__}"
        report[name] = f"{name}: " + ", ".join(f"{key} {number}" for key, number in {**used, **launch.options}.items())
        if used["spilled"] > SPILLED_AT_MOST or used["shared"] > LEAST_SHARED:
            wrong.append(report[name])
    assert not wrong, "\n".join(wrong)


def name(case):
    return f"{case[0].__name__}-{'-'.join(map(str, case[1]))}"


def named(cases):
    return [pytest.param(*case, id=name(case)) for case in cases]


def for_each_architecture():
    """All of QUICK for sm_90, and a third of them for each of the others; the rest is slow."""
    for index, case in enumerate(QUICK + MORE):
        for capability in (80, 90, 100):
            quick = index < len(QUICK) and (capability == 90 or (index + capability // 100) % 3 == 0)
            marks = () if quick else pytest.mark.slow
            yield pytest.param(*case, capability, id=f"{name(case)}-sm_{capability}", marks=marks)


@pytest.mark.parametrize(("call", "arguments", "capability"), [*for_each_architecture()])
def test_compiles_for_each_architecture_without_spills(call, arguments, capability, report):
    assert_compiles(call, arguments, capability, report)


def noted(source):
    """What is known of each argument; versions of Triton differ in whether they list those of which nothing is."""
    return {index: facts for index, facts in source.attrs.items() if facts}


@pytest.mark.parametrize(("call", "arguments"), named(QUICK))
def test_triton_launches_what_was_compiled_ahead(call, arguments):
    """At a launch Triton binds the arguments itself: to the types that are compiled for above, within all limits."""
    with _triton.recording() as launches:
        call(*arguments)
    taken = ahead.launched(launches, 90)
    assert len(taken) == len(launches)
    for launch, (source, grid) in zip(launches, taken):
        expected = ahead.source_of(launch)
        assert source.signature == expected.signature
        assert noted(source) == noted(expected)
        assert grid == (*launch.grid, 1, 1)[:3]


def test_float32_products_follow_the_setting_of_torch():
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        for setting, expected in (("ieee", "tf32x3"), ("tf32", "tf32")):
            torch.backends.cuda.matmul.fp32_precision = setting
            with _triton.recording() as launches:
                attention(1, 1, 20, 16, SINGLE)
            assert launches[0].constants["PRECISION"] == expected
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_few_columns_are_wasted():
    assert [_triton.pieces(n) for n in (1, 16, 24, 30, 64, 80, 96, 72)] == [
        (16, 0), (16, 0), (32, 0), (32, 0), (64, 0), (64, 16), (64, 32), (64, 16),
    ]  # fmt: skip
    for n in range(1, 400):
        first, second = _triton.pieces(n)
        assert n <= first + second <= max(32, 1.34 * n + 16)
