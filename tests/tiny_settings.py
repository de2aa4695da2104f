"""Settings of a detector that trains in a second, for the tests of everything around it."""

# A SIVT that trains in a second: random backbone, 64x64 pictures, 16 tokens.
TINY = {
    "backbone": "efficientnet_lite0",
    "weights": "none",
    "image_size": 64,
    "feature_size": 8,
    "dim": 16,
    "heads": 2,
    "encoder_depth": 2,
    "decoder_depth": 1,
    "epochs": 2,
    "sigma": 1,
    "lr": 0.001,
}
TINY_OPTIONS = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
