#!/bin/sh
# The main job on the built-in synthetic data: train, evaluate, draw. `make demo` runs it with the environment set up.
set -eu
out="${1:-demo}"
rm -rf "$out/run" "$out/overlays"
mkdir -p "$out"
echo "1. train on good synthetic pictures (two CPU cores: about four minutes)"
vitlite train --method sivt --preset quick --set steps="${DEMO_STEPS:-350}" --out "$out/run"
echo "2. score the labelled test pictures"
vitlite eval "$out/run"
echo "3. draw where they are defective"
vitlite predict "$out/run" "$out/run/synthetic/*/test/*/*.png" --out "$out/overlays"
echo "overlays: $out/overlays/*.png    scores: $out/overlays/predictions.csv    metrics: $out/run/results.json"
