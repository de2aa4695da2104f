"""Settings of a detector that trains in a second, for the tests of everything around it."""

# A SIVT that trains in a moment, of the pixels of 64x64 images, with 16 tokens.
TINY = {
    "backbone": "image",
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
    "folds": 0,  # further networks take as long again
    "holdout": 0.1,
    "score": "std",
    "places": "none",
    "split_block": 1,
    "bank": 20,
    "start": "none",
}


def options_of(settings, prefix=""):
    """The settings as a command takes them."""
    return [part for key, value in settings.items() for part in ("--set", f"{prefix}{key}={value}")]


TINY_OPTIONS = options_of(TINY)
# With a network of random weights before it.
WITH_BACKBONE = TINY | {"backbone": "efficientnet_lite0"}

# The methods that reconstruct, of 32x32 images.
SHARED = {"image_size": 32, "epochs": 3, "sigma": 1, "batch_size": 4}
TRANSFORMER = {"patch": 8, "dim": 16, "depth": 1, "heads": 2, "channels": "8,8,4,4,4", "augment": "affine"}
RECONSTRUCTION = {
    "anovit": {**SHARED, **TRANSFORMER},
    "memca": {**SHARED, **TRANSFORMER, "items": 20},
    "l2cae": {**SHARED, "window": 16, "stride": 8, "latent": 5, "augment": "affine"},
}

# Every published method, on top of its quick preset.
METHODS = {
    "sivt": WITH_BACKBONE,
    **RECONSTRUCTION,
    "knn": {"backbone": "efficientnet_lite0", "weights": "none", "image_size": 64, "feature_size": 8, "bank": 50}
    | {"sigma": 1, "folds": 0, "holdout": 0.1, "score": "max", "places": "none"},
    "dinomaly": {"weights": "none", "image_size": 28, "layers": "1,2", "depth": 2, "sigma": 1, "batch_size": 4}
    | {"epochs": 2, "folds": 0, "holdout": 0.1, "score": "top1", "places": "none", "precision": "float32"}
    | {"mining_steps": 2},
    "vtadl": {"image_size": 64, "patch": 16, "dim": 16, "vector": 64, "channels": "8,8,8,8", "gaussians": 3}
    | {"epochs": 2, "density_epochs": 2, "sigma": 1, "batch_size": 4},
    "isstad": {"image_size": 32, "patch": 8, "dim": 16, "encoder_depth": 2, "decoder_dim": 16, "decoder_depth": 2}
    | {"mae_epochs": 2, "epochs": 2, "sigma": 1, "batch_size": 4, "precision": "float32"},
}
