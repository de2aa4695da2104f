"""What the operators stand on: the way in, the tables of backends, the compiled library, the build, copies."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import torch

from vitlite import kernels
from vitlite.kernels import _extension
from vitlite.kernels._backends import Backends

FOLDER = Path(kernels.__file__).parent
# Present in a clone, not in an installed package.
CLONE = Path(__file__).parents[2]

# Calls every operator with gradients and prints which backends served; `kernels` is bound by the test.
USE_EVERYTHING = """
for name in kernels.OPERATORS:
    tensors = [a.requires_grad_() for a in kernels.operator(name).sample()]
    for backend in ("auto", "eager"):
        results = getattr(kernels, name)(*tensors, backend=backend)
        (results[0] if isinstance(results, tuple) else results).sum().backward()
    print(name, kernels.backends(name)["auto"]["cpu"])
"""


def python(code, *path, **environment):
    """Runs code in a fresh interpreter that finds modules in `path` first; returns what it prints."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, cwd=path[0])
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A project that has the sources of the operators as its own `borrowed.fused`, without the compiled library."""
    project = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "_build_info.json")
    shutil.copytree(FOLDER, project / "borrowed" / "fused", ignore=ignored)
    return project


def test_a_copied_folder_works_alone(foreign):
    code = "from borrowed.fused import ssim\nfrom borrowed import fused as kernels\n" + USE_EVERYTHING
    code += "import sys\nassert not any(name.split('.')[0] == 'vitlite' for name in sys.modules)\n"
    served = dict(line.split() for line in python(code, foreign).splitlines())
    assert served.pop("attention") == "sdpa"
    assert set(served.values()) == {"eager"}


def test_a_copied_folder_works_beside_the_installed_one(foreign, compiled):
    code = "from vitlite.kernels import ssim\nfrom borrowed import fused as kernels\n" + USE_EVERYTHING
    served = dict(line.split() for line in python(code, foreign, CLONE).splitlines())
    assert served["ssim"] == "cpp"


def test_the_installed_one_works_after_a_copied_one(foreign):
    code = "from borrowed.fused import ssim\nfrom vitlite import kernels\n" + USE_EVERYTHING
    code += "print(kernels.backends('ssim')['unavailable']['cpp'])\n"
    *served, reason = python(code, foreign, CLONE).splitlines()
    assert dict(line.split() for line in served)["ssim"] == "eager"
    assert "another copy" in reason


def test_a_library_that_cannot_be_loaded_is_explained(foreign, tmp_path):
    shutil.copytree(foreign / "borrowed", tmp_path / "borrowed")
    (tmp_path / "borrowed" / "fused" / "_C.abi3.so").write_bytes(b"not a library")
    code = "from borrowed import fused as kernels\n" + USE_EVERYTHING
    code += "print(kernels.backends('ssim')['unavailable']['cpp'])\n"
    *served, reason = python(code, tmp_path).splitlines()
    assert dict(line.split() for line in served)["ssim"] == "eager"
    assert reason.startswith("_C.abi3.so could not be loaded: ")
    assert "too short" in reason or "invalid ELF header" in reason or sys.platform != "linux"  # what the system says


def test_rooms_import_nothing_but_their_own_and_the_declared():
    allowed = {"torch", "numpy", "triton"} | set(sys.stdlib_module_names)
    for file in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            assert {name.split(".")[0] for name in names} <= allowed, file


@pytest.mark.slow
def test_the_import_registers_every_operator(compiled):
    """What was exported can be loaded then."""
    code = "import torch, vitlite.kernels as kernels\n"
    code += "print([n for n in kernels.OPERATORS if not hasattr(torch.ops.vitlite, 'triton_' + n + '_forward')])"
    assert python(code, CLONE).strip() == "[]"


def test_functions_keep_their_names_beside_rooms_of_the_same_name():
    importlib.import_module("vitlite.kernels.ssim")  # binds the room over the function, were it not prevented
    from vitlite.kernels import attention, ssim
    from vitlite.kernels.ssim.reference import ssim_torch

    assert callable(ssim)
    assert callable(attention)
    assert ssim_torch.__module__ == "vitlite.kernels.ssim.reference"
    assert set(kernels.OPERATORS) < set(dir(kernels))
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = kernels.nothing_here


def test_backends_lists_every_operator():
    table = kernels.backends()
    assert set(table) == set(kernels.OPERATORS)
    for op, entry in table.items():
        assert "eager" in entry["available"]
        assert set(entry["auto"].values()) <= set(entry["available"])
        assert all(isinstance(reason, str) and "\n" not in reason for reason in entry["unavailable"].values())
        assert kernels.backends(op) == entry
    with pytest.raises(ValueError, match="op: 'blur' is not an operator"):
        kernels.backends("blur")


def test_backends_pick_the_best_or_say_why_not():
    table = Backends("blur", [("cpp", "cpu", None), ("cuda", "cuda", "no card"), ("eager", None, None)])
    assert table.pick("auto", "cpu") == "cpp"
    assert table.pick("auto", "cuda") == "eager"
    assert table.pick("auto", "mps") == "eager"
    assert table.pick("eager", "mps") == "eager"
    assert table.describe()["unavailable"] == {"cuda": "no card"}
    with pytest.raises(ValueError, match="backend: 'cuda' of blur is not available: no card"):
        table.pick("cuda", "cuda")
    with pytest.raises(ValueError, match="backend: 'cpp' of blur does not run on cuda tensors"):
        table.pick("cpp", "cuda")
    with pytest.raises(ValueError, match="backend: 'fast' is not one of auto, cpp, cuda, eager"):
        table.pick("fast", "cpu")


def test_schemas_in_python_are_those_of_the_library(compiled):
    kernels.backends()  # imports every room
    assert _extension._conflicts == {}


@pytest.mark.parametrize("step", ["forward", "backward"])
def test_another_schema_is_a_conflict_and_not_overwritten(compiled, step):
    """Of either step: one of each would not go together."""
    kernels.backends("ssim")
    before = _extension.registered_schema(f"ssim_{step}")
    try:
        _extension.define(f"ssim_{step}(Tensor x) -> Tensor", lambda x: x)
        assert "another schema" in _extension.why_not("ssim")
        unavailable = Backends("ssim", kernels.operator("ssim")._table(("CPU",), ())).describe()["unavailable"]
        assert "another schema" in unavailable["cpp"]
    finally:
        _extension._conflicts.clear()
    assert _extension.registered_schema(f"ssim_{step}") == before
    assert _extension.why_not("ssim") is None


def test_instruction_sets_are_chosen_at_run_time(level):
    wanted = {"generic": 0, "avx2": 1, "avx512": 2}[level]
    assert torch.ops.vitlite.isa_level(-1) == wanted


def test_the_library_needs_no_particular_python(compiled):
    (library,) = FOLDER.glob("_C.*so")
    assert library.name == "_C.abi3.so"
    tool = shutil.which("nm")
    if tool is None:
        pytest.skip("nm is not installed")
    symbols = subprocess.run([tool, "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    names = [line.split()[-1] for line in symbols.stdout.splitlines()]
    assert not [name for name in names if name.startswith(("Py", "_Py"))]
    # Nothing of torch but the C functions of its stable ABI.
    assert not [name for name in names if "c10" in name or "N2at" in name or "5torch" in name]


def test_a_build_without_extensions_keeps_the_reason(set_up):
    installed, info, said = set_up(VITLITE_NO_EXT="1")
    assert "installing without compiled operators" in said
    assert info["compiled"] is False
    assert "VITLITE_NO_EXT was set" in info["reason"]
    assert not list((installed / "vitlite" / "kernels").glob("_C*"))


@pytest.mark.parametrize("environment", [{"VITLITE_NO_EXT": "1"}, {"CXX": "no-such-compiler"}])
def test_a_build_that_must_compile_fails_without_a_compiler(set_up, environment):
    said = set_up(fails=True, VITLITE_REQUIRE_EXT="1", **environment)
    assert "VITLITE_REQUIRE_EXT is set, and there are no compiled operators: " in said.splitlines()[-1]


def test_a_wheel_whose_compilation_failed_is_for_every_platform(set_up, tmp_path):
    """The build goes on, and keeps the reason."""
    _, info, said = set_up("bdist_wheel", "--dist-dir", "wheels", CXX="no-such-compiler")
    assert "installing without compiled operators" in said
    assert (info["compiled"], info["cuda"]["compiled"]) == (False, False)
    assert "no-such-compiler" in info["reason"]
    assert "VITLITE_CUDA=1 was not set" in info["cuda"]["reason"]
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "vitlite/kernels/ssim/op.py" in names
    assert not [name for name in names if name.endswith(".so") or "/tests/" in name or "/results/" in name]
    assert not [name for name in names if ".data/" in name]


ISA_OF_A_PROCESS = "from vitlite.kernels import _extension\nprint(_extension.instruction_set())"


@pytest.mark.parametrize("name", ["generic", "avx2"])
def test_the_environment_names_the_instruction_set(compiled, name):
    if torch.ops.vitlite.isa_level(-1) < _extension.LEVELS.index(name):
        pytest.skip(f"this processor has no {name}")
    assert python(ISA_OF_A_PROCESS, CLONE, VITLITE_ISA=name).strip() == name


def test_an_instruction_set_that_there_is_not_is_an_error(compiled):
    code = ISA_OF_A_PROCESS.replace("print(", "print('before')\nprint(")
    with pytest.raises(AssertionError, match="VITLITE_ISA=sse: is not one of avx512, avx2, generic"):
        python(code, CLONE, VITLITE_ISA="sse")


def test_a_call_keeps_its_instruction_set_while_another_thread_changes_it(compiled):
    """Panels laid out for one are never read by another, nor is the memory of one too small for another."""
    levels = range(torch.ops.vitlite.isa_level(2) + 1)
    tensors = torch.randn(300, 70), torch.randn(90, 70)
    right = {level: set_level_and_read(level, tensors) for level in levels}
    done = threading.Event()

    def change():
        while not done.is_set():
            for level in levels:
                torch.ops.vitlite.isa_level(level)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        found = [kernels.memory_read(*tensors)[0] for _ in range(60)]
    finally:
        done.set()
        changing.join()
        torch.ops.vitlite.isa_level(2)
    assert all(any(torch.equal(a, b) for b in right.values()) for a in found)


def set_level_and_read(level, tensors):
    torch.ops.vitlite.isa_level(level)
    return kernels.memory_read(*tensors)[0]
