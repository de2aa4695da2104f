#!/bin/sh
# Everything that needs a GPU, in nine minutes: builds the extensions, runs the operators' tests and compute-sanitizer,
# then times the operators, and writes a dated CSV to bench/results (or to $OUT). An operator whose test failed is not
# timed. Exits with 0 if all is well, 1 if something failed, 2 if there is no GPU.
#
#   bench/gpu.sh             the whole run
#   bench/gpu.sh --predict   what an H100's data sheet would allow; needs no GPU
#   bench/gpu.sh --no-build  with the extensions that are there
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" bench/gpu_run.py "$@"
