"""Everything a user can get wrong that we could think of: the documented exit code, one line, nothing half-written."""

import fnmatch
import hashlib
import re
import shutil
import subprocess
import sys

import pytest
from bad_case import Place
from bad_images import FOLDERS, IMAGES, MAPS
from bad_options import OPTIONS
from bad_runs import CALIBRATIONS, CHECKPOINTS, CONFIGS, EXPORTS
from commands import outcome

TABLES = {
    "images": IMAGES,
    "folders": FOLDERS,
    "maps": MAPS,
    "options": OPTIONS,
    "checkpoints": CHECKPOINTS,
    "configs": CONFIGS,
    "calibrations": CALIBRATIONS,
    "exports": EXPORTS,
}
CASES = [pytest.param(case, id=f"{name}: {case.name}") for name, table in TABLES.items() for case in table]
# Some go through a process of their own, to see what a shell sees: nothing behind the line, nothing from C libraries.
ALSO_OUTSIDE = {"image cut TIFF", "checkpoint code, pickle 2", "no command"}


@pytest.fixture
def place(tmp_path, tiny_run, tiny_data, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that files by default names would be seen too

    def once(source):
        return lambda target: target if target.exists() else shutil.copytree(source, target)

    return Place(tmp_path, once(tiny_run), once(tiny_data))


def tree(folder):
    """Every file below a folder with a digest of its bytes, hidden ones too; folders and links by their kind."""
    found = {}
    for path in folder.rglob("*"):
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "other"
        name = str(path.relative_to(folder))
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if kind == "other" and path.is_file() else kind
    return found


def run_here(args):
    return outcome(*args)


def run_outside(args):
    done = subprocess.run([sys.executable, "-m", "vitlite", *args], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def check(case, place, run):
    args = [str(arg) for arg in case.make(place)]
    before = tree(place.root)
    code, out, err = run(args)
    assert "Traceback" not in out + err
    assert code == case.code, err
    if case.says is not None:
        line = err.splitlines()[-1]
        assert re.match(f"vitlite: {case.says}", line), line
        assert len([line for line in err.splitlines() if line.startswith("vitlite: ")]) == 1
        # What comes before it is said on the way: files passed over, what is trained.
        assert all(
            re.match(
                "skipped |not read: |scale: |shape: |data: |model: |vitlite: |.* left$|.* copies of another one: |"
                ".* left out, because they are no photographs: ",
                line,
            )
            for line in err.splitlines()
        ), err
    assert not place.marker.exists(), "code from the input was run"
    after = tree(place.root)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    files = {name for name in changed if after.get(name) != "folder"}
    strange = [name for name in files if not any(fnmatch.fnmatch(name, pattern) for pattern in case.writes)]
    assert not strange, strange
    assert not [name for name in after if name.endswith(".tmp")]
    assert bool(files) == bool(case.writes), "what the case says that it writes"


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, place):
    check(case, place, run_here)


@pytest.mark.parametrize("case", [case for case in CASES if case.values[0].name in ALSO_OUTSIDE])
def test_bad_input_in_a_process_of_its_own(case, place):
    check(case, place, run_outside)


def test_the_cases_outside_are_there():
    assert {case.values[0].name for case in CASES} >= ALSO_OUTSIDE
    assert len(CASES) >= 40
    assert len({case.id for case in CASES}) == len(CASES)
