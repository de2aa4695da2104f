#!/bin/sh
# Everything that needs a GPU, in about ten minutes: builds the extensions, runs the tests of the operators, times each
# operator whose tests passed, and writes a dated CSV into bench/results, or into $OUT.
# Exits with 0 if all is well, 1 if something failed, 2 if there is no GPU.
#
#   PYTHON=.venv/bin/python sh bench/gpu.sh
set -u
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
out="${OUT:-bench/results}"
report=build/gpu-tests.xml
failed=0

arch=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())' 2>/dev/null) || {
    echo "no CUDA device: nothing was built, tested or timed"
    exit 2
}
mkdir -p build "$out"
rm -f "$report"

echo "== build for sm_$arch"
VITLITE_REQUIRE_EXT=1 VITLITE_CUDA=1 VITLITE_CUDA_ARCH="$arch" \
    "$python" -m pip install -q --no-index --no-deps --no-build-isolation -e . || failed=1
"$python" -c '
from vitlite.kernels import _extension
print(_extension.errors)
raise SystemExit(any(_extension.errors.values()))' || failed=1

echo "== tests"
# Most of the time is that of Triton, which compiles some hundred kernels.
workers=$("$python" -c 'import os, xdist; print("-n", min(os.cpu_count(), 12), "--dist worksteal")' 2>/dev/null)
# cuBLAS is deterministic, as the tests ask, only with a workspace of fixed size.
# shellcheck disable=SC2086
CUBLAS_WORKSPACE_CONFIG=:4096:8 TORCHINDUCTOR_COMPILE_THREADS=1 OMP_NUM_THREADS=1 \
    "$python" -m pytest -q -m gpu -p no:cacheprovider --junitxml="$report" $workers tests/kernels || failed=1

echo "== times"
"$python" -m vitlite.bench ops --device cuda --tests "$report" --csv "$out/$(date +%F)-gpu-ops.csv" || failed=1
exit $failed
