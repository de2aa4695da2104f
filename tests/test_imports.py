"""Imports point one way: no arrow up, no circle, and torch stays out where it is not needed.

What is read are all imports of a file, also those inside functions, and what stands for one: the attribute of a package
that it resolves on first use, and the name of a module as a string.
"""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"vitlite": "vitlite", "vitlite.kernels": "kernels", "vitlite.cli": "cli", "vitlite.bench": "bench"}
# A room imports from its own line or from one above; what else its own line allows, the search for circles says.
ORDER = (
    ("vitlite", "errors", "files", "lazy", "ledger", "progress"),
    ("kernels",),
    ("images", "metrics"),
    ("data", "nn", "backbones"),
    ("limits", "odd", "good_scores", "results", "score_table", "verdict", "predictor", "calibration", "answers"),
    ("methods",),
    ("engine",),
    ("report", "export"),
    ("api",),
    ("serve",),  # its workers open runs and exported files, which is api's
    ("cli", "bench", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
ALONE = ("kernels", "metrics")  # import nothing of vitlite
# What a room may import that is neither the standard library's nor vitlite's; a room that is not here: anything.
OUTSIDE = {
    "cli": {"click"},
    "answers": {"numpy"},
    "data": {"numpy", "PIL", "scipy"},
    "errors": set(),
    "files": set(),
    "calibration": {"numpy"},
    "good_scores": set(),
    "images": {"numpy", "PIL", "scipy"},
    "kernels": {"numpy", "torch", "triton"},
    "ledger": set(),
    "limits": {"numpy", "scipy"},
    "metrics": {"numpy", "numba"},
    "odd": {"numpy"},
    "predictor": {"numpy", "PIL"},
    "score_table": {"numpy"},
    "serve": {"numpy", "PIL", "starlette", "uvicorn"},
    "verdict": {"numpy", "scipy"},
}


def room(module):
    return (module + ".").split(".")[1] or "vitlite"


def string(node):
    """What a string in the code says; None for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


class Tree:
    """The modules below a folder, and what each of them imports."""

    def __init__(self, root):
        self.files = {}
        for package, folder in FOLDERS.items():
            for path in sorted((root / folder).rglob("*.py")):
                parts = path.relative_to(root / folder).with_suffix("").parts
                self.files[".".join([package, *(part for part in parts if part != "__init__")])] = path
        self.code = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.files.items()}
        for name, path in self.files.items():
            if path.stem == "__init__":  # what it resolves on first use it shows to type checkers as an import
                self.code[name].body = [node for node in self.code[name].body if not for_types(node)]
        self.lazy = {name: self.resolved_later(name) for name, path in self.files.items() if path.stem == "__init__"}
        self.names = {name: set(self.imported(name)) for name in self.files}
        # A module that another one names in a string, as a registry does, is no part of a circle between modules.
        self.plain = {name: self.own(names) - {name} for name, names in self.names.items()}
        self.graph = {name: self.plain[name] | self.own(self.named(name)) - {name} for name in self.files}

    def own(self, names):
        """The modules here that dotted names lie in."""
        return {self.home(name) for name in names if name.split(".")[0] == "vitlite"}

    def resolved_later(self, package):
        """{attribute: module} from the dictionaries of strings in a package's ``__init__``."""
        found = {}
        for node in ast.walk(self.code[package]):
            if isinstance(node, ast.Dict):
                pairs = zip(map(string, node.keys), map(string, node.values))
                for key, value in pairs:
                    for module in (f"{package}.{value}", f"vitlite.{value}", value):
                        if key and module in self.files:
                            found[key] = module
        return found

    def imported(self, module):
        """Dotted names that a module imports, with the name that it takes from there."""
        package = module if self.files[module].stem == "__init__" else module.rpartition(".")[0]
        for node in ast.walk(self.code[module]):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = package.rsplit(".", node.level - 1)[0] if node.level else ""
                start = ".".join(part for part in (base, node.module) if part)
                yield from (f"{start}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Attribute):
                chain = ast.unparse(node)
                if chain.startswith("vitlite.") and chain.replace(".", "").isidentifier():
                    yield chain

    def named(self, module):
        """Names of modules in its strings."""
        strings = (string(node) or "" for node in ast.walk(self.code[module]))
        return {text for text in strings if "." in text and text in self.files}

    def home(self, name):
        """The module that a dotted name lies in."""
        module, rest = name, []
        while module not in self.files:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
        later = self.lazy.get(module, {}).get(rest[0]) if rest else None
        return later or module

    def strangers(self):
        """Sentences that name what a room imports and is neither its own, nor the standard library's nor vitlite's."""
        for module, names in self.names.items():
            for package in sorted({name.split(".")[0] for name in names} - {"vitlite"} - sys.stdlib_module_names):
                if package not in OUTSIDE.get(room(module), {package}):
                    yield f"{module} imports {package}"


def arrows_up(tree):
    """Sentences that name what is imported against the order."""
    found = [f"{name}: is in no room of the order" for name in tree.graph if room(name) not in LEVEL]
    for name, targets in tree.graph.items():
        for target in sorted(targets):
            here, there = room(name), room(target)
            if here != there and (LEVEL.get(there, 99) > LEVEL.get(here, 99) or here in ALONE):
                found.append(f"{name} imports {target}")
    return found


def circle(graph):
    """The names of a circle in a graph {name: names}, or an empty list."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def rooms_of(tree):
    """{room: the rooms it imports}; the package's own ``__init__`` is everyone's."""
    graph = {}
    for name, targets in tree.graph.items():
        graph.setdefault(room(name), set()).update({room(target) for target in targets} - {room(name)})
    return graph


@pytest.fixture(scope="module")
def tree():
    return Tree(ROOT)


def test_every_room_has_a_place(tree):
    assert {room(name) for name in tree.files} == set(LEVEL)


def test_no_arrow_points_up(tree):
    assert arrows_up(tree) == []


def test_no_circle_between_rooms(tree):
    assert circle(rooms_of(tree)) == []


def test_no_circle_between_modules(tree):
    assert circle(tree.plain) == []


def test_rooms_import_only_the_libraries_that_are_theirs(tree):
    assert list(tree.strangers()) == []


def test_evaluate_does_not_train(tree):
    assert "vitlite.engine.train" not in tree.graph["vitlite.engine.evaluate"]


def test_engine_is_small(tree):
    assert len([name for name in tree.files if room(name) == "engine"]) <= 16


# A tree with one fault each: what is written where, and what the reader says of it.
FAULTS = {
    "an import": ("vitlite/engine/split.py", "import vitlite.report.page", "arrow"),
    "an import with another name": ("vitlite/nn/vit.py", "import vitlite.methods.sivt as s", "arrow"),
    "from a module": ("vitlite/engine/split.py", "from vitlite.api import load", "arrow"),
    "from a package": ("vitlite/engine/split.py", "from vitlite import report", "arrow"),
    "a relative import": ("vitlite/engine/split.py", "from ..report import page", "arrow"),
    "in a function": ("vitlite/engine/split.py", "def f():\n    if 1:\n        from vitlite.cli import x", "arrow"),
    "an attribute": ("vitlite/engine/split.py", "import vitlite\nvitlite.report.page.draw()", "arrow"),
    "an attribute resolved later": ("vitlite/engine/split.py", "import vitlite\nvitlite.load(1)", "arrow"),
    "a name resolved later": ("vitlite/engine/split.py", "from vitlite import load", "arrow"),
    "a string": ("vitlite/engine/split.py", "NAMES = {'x': 'vitlite.report.page'}", "arrow"),
    "operators that know vitlite": ("kernels/ssim.py", "from vitlite.errors import UserError", "arrow"),
    "a room without a place": ("vitlite/attic/old.py", "", "arrow"),
    "rooms": ("vitlite/report/other.py", "from vitlite.export import onnx", "rooms"),
    "modules": ("vitlite/report/page.py", "def f():\n    from vitlite.report.draw import y", "modules"),
    "a library": ("vitlite/data/index.py", "def f():\n    import torch", "library"),
}
SOUND = {
    "vitlite/__init__.py": "_HOME = {'load': 'api'}",
    "vitlite/errors.py": "class UserError(ValueError): pass",
    "vitlite/api.py": "from vitlite.engine.split import split\nfrom vitlite.report import page",
    "vitlite/nn/vit.py": "import torch\nimport vitlite\nvitlite.__version__",
    "vitlite/data/index.py": "import os\nimport numpy\nfrom vitlite.errors import UserError",
    "vitlite/methods/sivt.py": "from vitlite.nn import vit",
    "vitlite/engine/split.py": "from vitlite.methods.sivt import x\nfrom vitlite.data.index import y",
    "vitlite/report/page.py": "from vitlite.engine import split",
    "vitlite/report/draw.py": "from . import page",
    "vitlite/export/onnx.py": "from vitlite.report.page import draw",
    "kernels/ssim.py": "from . import checks",
    "kernels/checks.py": "",
    "cli/train.py": "import click\nimport vitlite\nvitlite.load(1)",
}


def small_tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in list(path.relative_to(root).parents)[:-1]:
            (root / folder / "__init__.py").touch()
        path.write_text(text + "\n")
    return Tree(root)


def faults(tree):
    """The kinds of fault in a tree, and None."""
    return {
        "arrow" if arrows_up(tree) else None,
        "rooms" if circle(rooms_of(tree)) else None,
        "modules" if circle(tree.plain) else None,
        "library" if list(tree.strangers()) else None,
    }


def test_the_reader_passes_a_sound_tree(tmp_path):
    tree = small_tree(tmp_path, SOUND)
    assert faults(tree) == {None}
    assert tree.graph["vitlite.report.draw"] == {"vitlite.report.page"}
    assert tree.graph["vitlite.cli.train"] == {"vitlite", "vitlite.api"}


@pytest.mark.parametrize("name", FAULTS)
def test_the_reader_sees_a_fault(name, tmp_path):
    path, text, kind = FAULTS[name]
    assert kind in faults(small_tree(tmp_path, {**SOUND, path: SOUND.get(path, "") + "\n" + text}))


HELP = """
from vitlite.cli import main
try: main({0})
except SystemExit as end: assert not end.code
"""
USE_DATA = """
import vitlite.data as data
root = data.synthesize("set", categories="wood", size=32, train=2, good=1, defects=1)
dataset = data.open_dataset(root)
data.resize_image(data.read_image(dataset.train[0].path), (8, 8))
data.read_mask(dataset.test[-1].mask)
data.scan(dataset.train), data.list_images([root]), data.check(root).text()
"""
USE_METRICS = """
import numpy as np, vitlite.metrics, vitlite.images.maps, vitlite.results
vitlite.metrics.evaluate_maps(np.eye(3)[None].repeat(2, 0) * [[[0]], [[1]]], np.random.rand(2, 3, 3))
vitlite.metrics.StreamingEvaluator
"""
DRAW_A_CARD = """
import numpy as np
from PIL import Image
from vitlite.limits import Limits
from vitlite.report.gallery import make_card
Image.new("RGB", (9, 9)).save("a.png")
limits = Limits(1.0, 1.0, np.zeros(1))
make_card(0, "a.png", "a.png", np.zeros((8, 8), np.float32), None, limits, {"low": 0, "high": 1})
"""
EVERY_MODULE = """
import importlib, pkgutil
for room in ("metrics", "images", "data", "serve"):
    package = importlib.import_module(f"vitlite.{room}")
    for module in pkgutil.walk_packages(package.__path__, f"vitlite.{room}."):
        importlib.import_module(module.name)
import vitlite.backbones
assert "vgg19" in vitlite.backbones.available()
"""


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import vitlite", {"torch", "numba", "numpy"}),
        ("import vitlite.data, vitlite.images", {"torch", "numba", "numpy", "PIL", "scipy"}),
        ("import vitlite.metrics", {"torch", "numba", "numpy", "scipy"}),
        (HELP.format(["--help"]), {"torch", "numba", "numpy"}),
        (HELP.format(["eval-maps", "--help"]), {"torch", "numba"}),
        (USE_DATA, {"torch", "numba"}),
        (DRAW_A_CARD, {"torch", "numba", "vitlite.engine"}),
        (USE_METRICS + EVERY_MODULE, {"torch"}),
    ],
)
def test_light_imports_leave_torch_alone(code, absent, tmp_path):
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    loaded = set(done.stdout.split())
    assert "vitlite" in loaded
    assert not absent & loaded
