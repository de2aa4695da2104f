"""The library of CUDA kernels, proved without a GPU: it compiles, links, spills nothing, and registers its operators.

It is built once for all tests here, for sm_90, and, if slow tests run, for every architecture that is built for by
default and that nvcc knows. What ptxas says of registers, shared memory and spills stays in build/cuda-test.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CLONE = Path(__file__).parents[2]
OPERATORS = [f"{op}_{way}" for op in ("ssim", "gmm_log_likelihood") for way in ("forward", "backward")]

# Takes the place of the one function that only a CUDA build of torch has.
STREAM = 'extern "C" int aoti_torch_get_current_cuda_stream(int, void** stream) { *stream = nullptr; return 0; }\n'

LOAD = """
import ctypes, sys, torch
ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
torch.ops.load_library(sys.argv[2])
for op in sys.argv[3:]:
    print(op, torch._C._dispatch_has_kernel_for_dispatch_key(f"vitlite::{op}", "CUDA"))
from vitlite.kernels import backends
print("conflicts", sum("another schema" in str(entry) for entry in backends().values()))
x = torch.rand(1, 1, 12, 12)
try:
    torch.ops.vitlite.ssim_forward(x.to("meta"), x.to("meta"), 11, 1.5, 1.0, True, 1)
    print("meta served")
except Exception as error:
    print("meta", type(error).__name__)
"""


def load_builder():
    spec = importlib.util.spec_from_file_location("cuda_build", CLONE / "csrc" / "cuda" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def builder():
    if not (CLONE / "csrc" / "cuda").exists():
        pytest.skip("not a clone")
    module = load_builder()
    if module.find_nvcc() is None:
        pytest.skip("nvcc is not installed")
    return module


@pytest.fixture(scope="module", params=["90", pytest.param("", marks=pytest.mark.slow, id="default")])
def built(builder, request):
    """Architectures, library and report of ptxas."""
    folder = CLONE / "build" / "cuda-test" / (request.param or "default")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITLITE_CUDA_ARCH", request.param)
        architectures = builder.architectures(builder.find_nvcc())
        library = builder.build(folder, folder)
    return architectures, library, builder.report((folder / "ptxas.txt").read_text())


def test_the_kernels_spill_nothing(built):
    """None in single and half precision. In double precision a call of exp or log may save a few registers."""
    architectures, _, report = built
    assert {kernel["arch"] for kernel in report} == set(architectures)
    names = {re.search(r"\d+([a-z_]+_kernel)", kernel["kernel"])[1] for kernel in report}
    assert {"ssim_forward_kernel", "ssim_backward_kernel", "gmm_pairs_kernel", "gmm_gradients_kernel"} <= names
    for kernel in report:
        spilled = kernel["spill_stores"] + kernel["spill_loads"]
        # `d` is how a double is spelled among the template arguments of a kernel's name.
        limit = 64 if "kernelId" in kernel["kernel"] else 0
        assert spilled <= limit, kernel
        assert kernel["registers"] <= 255


def test_the_machine_code_is_there(built):
    architectures, library, _ = built
    tool = shutil.which("cuobjdump")
    if tool is None:
        shipped = importlib.util.find_spec("triton")
        shipped = shipped and Path(shipped.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        if not shipped or not shipped.exists():
            pytest.skip("cuobjdump is not installed")
        tool = str(shipped)
    code = {
        kind: set(re.findall(r"sm_(\d+)", subprocess.check_output([tool, f"--list-{kind}", library], text=True)))
        for kind in ("elf", "ptx")
    }
    assert code["elf"] == set(architectures)
    assert code["ptx"] == {max(architectures, key=int)}


def test_the_library_needs_only_the_stable_interface(built):
    _, library, _ = built
    tool = shutil.which("nm")
    if tool is None:
        pytest.skip("nm is not installed")
    symbols = subprocess.check_output([tool, "-D", "--undefined-only", library], text=True)
    names = [line.split()[-1] for line in symbols.splitlines()]
    assert "aoti_torch_get_current_cuda_stream" in names
    assert not [name for name in names if name.startswith(("Py", "_Py", "cuda", "cu"))]
    assert not [name for name in names if "c10" in name or "N2at" in name or "5torch" in name]


def test_the_library_asks_for_all_of_torch(built):
    """libtorch.so brings the CUDA half of torch along, where there is one."""
    _, library, _ = built
    tool = shutil.which("readelf")
    if tool is None:
        pytest.skip("readelf is not installed")
    needed = re.findall(r"NEEDED.*\[(.*)\]", subprocess.check_output([tool, "-d", library], text=True))
    assert "libtorch.so" in needed
    assert not [name for name in needed if name.startswith(("libcuda", "libtorch_cuda", "libpython"))]


def test_the_operators_are_registered(built, tmp_path):
    """Loaded into a torch without CUDA, with a stand-in for the one function that such a torch lacks."""
    _, library, _ = built
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    if torch.version.cuda is not None:
        pytest.skip("this torch has CUDA and needs no stand-in")
    (tmp_path / "stream.cpp").write_text(STREAM)
    subprocess.run([compiler, "-shared", "-fPIC", "stream.cpp", "-o", "stream.so"], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "stream.so"), str(library), *OPERATORS],
        capture_output=True,
        text=True,
        cwd=CLONE,
    )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert [said[op] for op in OPERATORS] == ["True"] * 4
    assert said["conflicts"] == "0"
    assert said["meta"] == "served"


@pytest.fixture
def failing_nvcc(tmp_path):
    """A CUDA_HOME whose compiler finds an error."""
    nvcc = tmp_path / "cuda" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\necho 'ssim.cu(3): error: no such thing' >&2\nexit 1\n")
    nvcc.chmod(0o755)
    return nvcc


def test_an_installation_goes_on_without_it_and_keeps_the_reason(set_up, failing_nvcc):
    # Without a C++ compiler the library for the processor is not compiled either, which takes minutes.
    installed, info, _ = set_up(VITLITE_CUDA="1", CUDA_HOME=str(failing_nvcc.parents[1]), CXX="no-such-compiler")
    assert info["cuda"]["compiled"] is False
    assert "ssim.cu(3): error: no such thing" in info["cuda"]["reason"]
    ask = "from vitlite.kernels import backends; print(backends('ssim')['unavailable']['cuda'])"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    said = subprocess.check_output([sys.executable, "-c", ask], cwd=installed, env=environment, text=True)
    assert said.startswith("_C_cuda is not built: ")
    assert "ssim.cu(3): error: no such thing" in said


def test_a_torch_without_cuda_does_not_load_it(tmp_path):
    if torch.version.cuda is not None:
        pytest.skip("this torch has CUDA")
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(CLONE / "kernels", tmp_path / "borrowed", ignore=ignored)
    (tmp_path / "borrowed" / "_C_cuda.abi3.so").write_bytes(b"not a library")
    ask = "from borrowed import backends; print(backends('ssim')['unavailable']['cuda'])"
    said = subprocess.check_output([sys.executable, "-c", ask], cwd=tmp_path, text=True)
    assert said.strip() == "_C_cuda.abi3.so needs a torch with CUDA, and this one is built without"


@pytest.mark.parametrize(
    ("wish", "nvcc", "cuda", "reason"),
    [
        ("0", "nvcc", "13.0", "VITLITE_CUDA=1 was not set"),
        ("", "nvcc", "13.0", "VITLITE_CUDA=1 was not set"),
        ("1", None, "13.0", "nvcc was not found"),
        ("1", "nvcc", None, None),
        ("1", "nvcc", "13.0", None),
    ],
)
def test_when_the_library_is_built(monkeypatch, wish, nvcc, cuda, reason):
    """Only if it is asked for, whatever the machine that builds has."""
    if not (CLONE / "csrc" / "cuda").exists():
        pytest.skip("not a clone")
    module = load_builder()
    monkeypatch.setenv("VITLITE_CUDA", wish)
    monkeypatch.setattr(module, "find_nvcc", lambda: nvcc)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    found = module.why_not()
    assert (found is None) if reason is None else (reason in found)


def test_a_failing_compiler_is_quoted(monkeypatch, tmp_path, failing_nvcc):
    if not (CLONE / "csrc" / "cuda").exists():
        pytest.skip("not a clone")
    module = load_builder()
    monkeypatch.setattr(module, "find_nvcc", lambda: str(failing_nvcc))
    monkeypatch.setenv("VITLITE_CUDA_ARCH", "90")
    monkeypatch.setenv("CXX", "true")  # which compiles nothing, in no time
    with pytest.raises(module.BuildError, match=r"ssim.cu\(3\): error: no such thing"):
        module.build(tmp_path / "out", tmp_path / "objects")
    assert not (tmp_path / "out").exists()


def test_only_architectures_that_the_compiler_knows_are_built(monkeypatch, tmp_path):
    if not (CLONE / "csrc" / "cuda").exists():
        pytest.skip("not a clone")
    module = load_builder()
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\nprintf 'sm_75\\nsm_80\\nsm_90\\nsm_90a\\n'\n")
    nvcc.chmod(0o755)
    monkeypatch.delenv("VITLITE_CUDA_ARCH", raising=False)
    found = module.architectures(str(nvcc))
    assert found == ("80", "90")
    assert module.code_flags(found)[-1] == "-gencode=arch=compute_90,code=compute_90"
