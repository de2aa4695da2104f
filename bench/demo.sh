#!/bin/sh
# The main job on synthetic textures: train, evaluate, draw. `make demo` runs it with the environment set up.
set -eu
out="${1:-demo}"
rm -rf "$out/data" "$out/run" "$out/overlays"
mkdir -p "$out"
echo "1. make images of three textures, good and defective"
vitlite data synth --out "$out/data" --categories weave,wood,granite
echo "2. train on the good ones (two CPU cores: about three minutes)"
vitlite train --method sivt --preset quick --folds 0 --set steps="${DEMO_STEPS:-350}" --data "$out/data" --category all --out "$out/run"
echo "3. score the labelled test images"
vitlite eval "$out/run"
echo "4. draw where they are defective"
vitlite predict "$out/run" "$out/data/*/test/*/*.png" --out "$out/overlays"
echo "overlays: $out/overlays/*.png    scores: $out/overlays/predictions.csv    metrics: $out/run/results.json"
