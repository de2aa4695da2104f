#!/usr/bin/env bash
# How this folder was made, with vitlite 0.1.0 (commit 89b8f3b) on a CPU, torch 2.13; not run again.
set -euo pipefail
mkdir /tmp/old_run && cd /tmp/old_run
vitlite data synth --out data --seed 3 --size 48 --categories weave --train 12 --good 3 --defects 1
# Only to keep the real path of this folder out of config.toml.
rm -rf /tmp/made && mv data /tmp/made

train() {
    local method=$1 sets=()
    shift
    for setting in "$@"; do sets+=(--set "$setting"); done
    vitlite train --method "$method" --data /tmp/made --category weave --out "$method" --device cpu "${sets[@]}"
    vitlite predict "$method" /tmp/made/weave/test/*/*.png --out "$method/predicted" --device cpu
    vitlite eval "$method" --device cpu
}
reconstruction=(image_size=32 epochs=6 sigma=1 batch_size=4 patch=8 dim=16 depth=1 heads=2 channels=8,8,4,4,4)
train anovit "${reconstruction[@]}"
train memca "${reconstruction[@]}" items=20
train isstad image_size=32 patch=8 dim=8 encoder_depth=1 heads=2 decoder_dim=8 decoder_depth=2 decoder_heads=2 \
    weights=none mae_epochs=2 epochs=2 steps=0 precision=float32 sigma=1
train vtadl image_size=32 patch=8 dim=16 depth=1 heads=2 vector=64 channels=8,8,8,8 density_epochs=2 \
    gaussians=3 epochs=2 sigma=1
train sivt backbone=image weights=none image_size=32 feature_size=4 dim=8 heads=2 encoder_depth=2 decoder_depth=1 \
    epochs=2 sigma=1
vitlite export anovit --format onnx

python - <<'PYTHON'
import json
from pathlib import Path

import vitlite
from vitlite.engine.settings import RunSettings, save_settings
from vitlite.methods import REGISTRY, method_class

expected = {}
for method in ("anovit", "memca", "isstad", "vtadl", "sivt"):
    detector, images = vitlite.load(method, "cpu"), {}
    for path in sorted(Path("/tmp/made/weave/test").rglob("*.png")):
        found = detector.predict(path)
        images["/".join(path.parts[-2:])] = {
            "score": found.score,
            "verdict": found.verdict,
            "percentile": found.percentile,
            "defect_pixels": found.defect_pixels,
            "regions": found.regions,
        }
    expected[method] = {"images": images, "mean": json.loads(Path(method, "results.json").read_text())["mean"]}
Path("expected.json").write_text(json.dumps(expected, indent=1) + "\n")

for method in REGISTRY:
    for preset, config in method_class(method).presets.items():
        folder = Path("configs", f"{method}-{preset}")
        folder.mkdir(parents=True)
        save_settings(folder, RunSettings(method, "/data/mvtec", "bottle,cable", preset, 7, config))
PYTHON
