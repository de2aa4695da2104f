"""The stages of bench/gpu.sh, each with its share of the nine minutes. Needs nothing but Python until it has built.

A stage that outruns its time is stopped. An operator is timed only if some of its tests ran and none failed.
"""

import argparse
import contextlib
import datetime
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
MINUTES = 9.0
# Of the time that a stage may take at most, in seconds; the last one takes what is left.
BUILD, TESTS, SANITIZER = 140, 200, 70
GENTLY = 20  # of the tests' time, for writing what was passed where not all were reached
MOST_WORKERS = 12  # of the tests; each has a CUDA context of its own
# Operator -> what its tests have in their names; the first that fits counts.
NAMES = {
    "linear_gmm_log_likelihood": ("gmm_linear", "linear_gmm", "density_head"),
    "gmm_log_likelihood": ("gmm",),
    "memory_read": ("memory",),
    "attention": ("attention",),
    "ssim": ("ssim",),
}
NO_GPU = "no CUDA device: nothing was built, tested or measured; bench/gpu.sh --predict prints what an H100 would allow"
SANITIZED = "from vitlite.bench import _gpu_small; _gpu_small.run()"


def hear_interrupts():
    """A shell starts what it runs in the background deaf to interrupts, and programs inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def operator_of(text):
    """The operator that a test's or a kernel's name is about, or None."""
    text = text.lower()
    return next((op for op, names in NAMES.items() if any(name in text for name in names)), None)


def judge(report):
    """Why operators are not to be timed, from a JUnit report of their tests.

    Args:
        report: text of the XML file, or None where there is none.

    Returns:
        operator -> reason, in one line; a failure that names no operator counts against all of them.
    """
    if report is None:
        return dict.fromkeys(NAMES, "its tests did not run to the end")
    passed, failed = dict.fromkeys(NAMES, 0), {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        name = f"{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name', '')}"
        # The test's own name says more than that of the file, which may hold several operators.
        op = operator_of(case.get("name", "")) or operator_of(case.get("classname", ""))
        if any(case.find(kind) is not None for kind in ("failure", "error")):
            for one in NAMES if op is None else (op,):
                failed.setdefault(one, f"{name} failed")
        elif case.find("skipped") is None and op is not None:
            passed[op] += 1
    return {op: failed.get(op) or "none of its tests ran" for op in NAMES if op in failed or not passed[op]}


def sanitized(text, code):
    """What compute-sanitizer found: operator -> reason. Everything is suspect where its kernels cannot be told."""
    if code == 0:
        return {}
    found = {}
    for line in text.splitlines():
        if re.search(r"Error|hazard|Invalid|Race", line) or " at " in line:
            op = operator_of(line)
            if op is not None:
                found.setdefault(op, "compute-sanitizer found an error in it")
    return found or dict.fromkeys(NAMES, "compute-sanitizer found an error")


class Run:
    """Runs commands until the time is up."""

    def __init__(self, minutes=MINUTES):
        self.end = time.monotonic() + minutes * 60

    def left(self):
        return self.end - time.monotonic()

    def command(self, command, most, quiet=False, gently=0, **variables):
        """(exit code, output); the code is None where the command was stopped or could not be started.

        With ``gently`` it is interrupted so many seconds before the end, to write what it has.
        """
        limit = max(1.0, min(most, self.left() - 5))
        environment = {**os.environ, **variables}
        if quiet:
            pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        else:
            pipe = {}
        if gently:
            pipe["preexec_fn"] = hear_interrupts
        with subprocess.Popen(command, cwd=CLONE, env=environment, start_new_session=True, **pipe) as process:
            try:
                text, _ = process.communicate(timeout=max(1.0, limit - gently))
                return process.returncode, text or ""
            except subprocess.TimeoutExpired:
                if gently:
                    process.send_signal(signal.SIGINT)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(gently)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                text, _ = process.communicate()
                print(f"stopped after {limit:.0f} s: {' '.join(map(str, command))[:120]}", flush=True)
                return None, text or ""


def stage(title, run):
    print(f"\n== {title} ({run.left():.0f} s left)", flush=True)


def find_gpu(run):
    """The architecture of the GPU as setup.py wants it, such as "90", or None."""
    code = "import torch; print('sm', *torch.cuda.get_device_capability(), sep='_')"
    found = re.search(r"^sm_(\d+)_(\d+)$", run.command([sys.executable, "-c", code], 120, quiet=True)[1], re.MULTILINE)
    return found and found[1] + found[2]


def build(run, architecture):
    """Whether both extensions are there; the package is installed from the clone, for this GPU alone."""
    stage("build", run)
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    wish = {"VITLITE_CUDA": "1", "VITLITE_CUDA_ARCH": architecture}
    code, text = run.command([*install, "-e", "."], BUILD, quiet=True, **wish)
    if code != 0:
        print(text[-3000:])
        return False
    ask = "from vitlite.kernels import _extension as e; print(e.errors); raise SystemExit(any(e.errors.values()))"
    code, text = run.command([sys.executable, "-c", ask], 60, quiet=True)
    print(text.strip())
    return code == 0


def test(run, folder):
    """operator -> why it is not to be timed, from the tests marked ``gpu``."""
    stage("tests", run)
    report = folder / "gpu-tests.xml"
    folder.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    if importlib.util.find_spec("xdist") is None:
        print("pytest-xdist is not installed: one process compiles all kernels, and may not come to an end in time")
    else:
        # Nearly all of the time is Triton's, compiling some hundred kernels.
        command += ["-n", str(min(os.cpu_count(), MOST_WORKERS)), "--dist", "worksteal"]
    # The tests ask torch for deterministic algorithms, which cuBLAS is with a workspace of fixed size only.
    variables = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}
    run.command([*command, "tests/kernels"], TESTS, gently=GENTLY, **variables)
    return judge(report.read_text() if report.exists() else None)


def sanitize(run):
    """operator -> what compute-sanitizer found on small shapes; where it does not work that is said."""
    stage("compute-sanitizer", run)
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None:
        print("compute-sanitizer is not installed")
        return {}
    found, began = {}, time.monotonic()
    for name in ("memcheck", "racecheck"):
        left = SANITIZER - (time.monotonic() - began)
        # Calls of the driver that fail and are handled, as some are while libraries look around, are not looked for.
        options = ["--report-api-errors", "no"] if name == "memcheck" else []
        command = [tool, "--tool", name, *options, "--error-exitcode", "9", sys.executable, "-c", SANITIZED]
        code, text = run.command(command, left, quiet=True, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        if code is None:
            print(f"{name}: not finished in its time, nothing is concluded")
        elif "not supported" in text or code not in (0, 9):
            print(f"{name}: does not work here: {text.strip()[-300:]}")
        else:
            problems = sanitized(text, code)
            print(f"{name}: {problems or 'no errors'}")
            if problems:
                print(text[-2500:])
            found = {**problems, **found}
    return found


def measure(run, refused, folder):
    stage("times", run)
    name = f"{datetime.date.today().isoformat()}-gpu-ops.csv"
    command = [sys.executable, "-m", "vitlite.bench.gpu_ops", "--csv", str(folder / name)]
    command += ["--seconds", f"{max(run.left() - 25, 1):.0f}"]
    for op, why in refused.items():
        command += ["--refuse", f"{op}={why}"]
    return run.command(command, run.left())[0]


def parser():
    p = argparse.ArgumentParser(prog="bench/gpu.sh", description="builds, tests, checks and times the GPU operators")
    p.add_argument("--predict", action="store_true", help="print predicted times; needs no GPU")
    p.add_argument("--no-build", action="store_true", help="use the extensions that are there")
    return p


def main(argv=None):
    options = parser().parse_args(argv)
    run = Run()
    if options.predict:
        code, _ = run.command([sys.executable, "-m", "vitlite.bench.gpu_ops", "--predict"], 120)
        return 1 if code is None else code
    architecture = find_gpu(run)
    if architecture is None:
        print(NO_GPU)
        return 2
    folder = Path(os.environ.get("OUT") or CLONE / "bench" / "results")
    folder.mkdir(parents=True, exist_ok=True)
    complete = options.no_build or build(run, architecture)
    if not complete:
        print("the build is not complete: what is there is tested all the same")
    refused = test(run, folder if os.environ.get("OUT") else CLONE / "build")
    if len(refused) < len(NAMES):
        refused = {**sanitize(run), **refused}
    code = measure(run, refused, folder)
    return 0 if complete and code == 0 and not refused else 1


if __name__ == "__main__":
    sys.exit(main())
