"""What the settings of all methods mean, in words and in groups; ``vitlite train --help-settings`` shows it.

A method outside this table gives the meaning of its own settings in ``Config.meanings``.
"""

from collections.abc import Iterator

from vitlite.methods.config import TrainingConfig
from vitlite.methods.kinds import NONE, kinds

TRAINING, THRESHOLD = "training", "good images for the threshold"

# Group: {setting: meaning}. Sections, equations and reasons stand beside the fields of each Config.
MEANINGS = {
    "images": {
        "image_size": "the network's input, in pixels: a side, or height,width; keep,N: the images' shape, about N x N",
        "tile": "above 0: the network sees tiles with a height of so many pixels of the image; 0: the whole image",
        "overlap": "the share of a tile that the next one covers too, at least",
        "black": "the number in files of more than 8 bits that becomes 0; none: training learns it",
        "white": "the number in files of more than 8 bits that becomes 255; none: training learns it",
        "crop": "above 0: images are scaled to so many pixels, and the middle image_size of them is seen",
        "train_images": "at most this number of good images of a category trains, drawn by the seed; 0: all",
        "augment": "how training images are varied: none, flip, or affine (rotation, shift, scale and flips)",
    },
    TRAINING: {
        "epochs": "passes over the training images",
        "steps": "above 0: the number of epochs that comes nearest to this number of optimiser steps",
        "max_epochs": "above 0: at most as many epochs, whatever steps says",
        "patience": "above 0: training ends early, once so many steps no longer find drawn defects better",
        "mae_epochs": "passes of the first stage, the masked autoencoder",
        "density_epochs": "passes that train the mixture alone, after the rest; 0: both together",
        "batch_size": "images for each optimiser step",
        "mae_batch_size": "the same in the first stage; 0: batch_size",
        "accumulate": "parts of a batch that are computed one after the other, with less memory",
        "optimizer": "adamw, adam, stableadamw, or muon (adamw for what is no matrix)",
        "lr": "the peak learning rate",
        "density_lr": "the same in the epochs that train the mixture alone; 0: lr",
        "mae_lr": "the same in the first stage, for a batch of 256",
        "beta1": "decay of the optimiser's mean gradient",
        "beta2": "decay of the optimiser's mean squared gradient",
        "weight_decay": "of weight matrices",
        "schedule": "of the learning rate after warm-up: constant, or cosine (to last_lr)",
        "last_lr": "the learning rate at the end, with schedule=cosine",
        "period": "above 0: epochs in which the rate of the last stage falls and rises again, with schedule=cosine",
        "warmup_epochs": "epochs in which the learning rate rises from 0",
        "warmup_steps": "above 0: so many steps in place of warmup_epochs",
        "average": "above 0: the weights at the end are an exponential average with this decay a step",
        "clip_norm": "the largest gradient norm; 0: not limited",
        "precision": "of the passes through the network: float32, bfloat16, or auto: bfloat16 if it is faster there",
        "compile": "whether torch compiles the loss",
    },
    THRESHOLD: {
        "holdout": "the share of good images that is kept out of training",
        "folds": "from 2 on: as many parts of the good images; each is scored by a network that trains without it",
        "folds_below": "above 0: folds only with fewer good images than this, otherwise holdout",
        "groups": "a regular expression: images whose names agree in it stay together; empty: near-copies do",
        "target_fpr": "the share of good images that may be called defective",
    },
    "score": {
        "score": "what an image's score takes from its map: max, top1, top10, mean, std, rms, auto, or a method's own",
        "places": "what each place of the map is compared with for the score: none, mean, scaled, absolute, or auto",
        "compare_maps": "whether the map that is shown is compared as well, and not the score alone; or auto",
        "map": "what the map is made of: of sivt product, l2 or cosine; of the autoencoders l2, ssim, or loss (both)",
        "align": "where the map's outer values lie: on the image's corners, or at the centres of its patches",
        "sigma": "of the Gaussian filter of the map, in pixels",
        "edge": "what that filter does at the edge: mirror, or even (noise there as strong as inside)",
        "split_block": "side, in tokens, of squares that the split of scoring keeps together",
        "start": "weights that the transformer begins with: none, auto (they come with vitlite), or a file",
        "split_seed": "of the split into subsets that scoring uses",
        "mask_seed": "of the masks that variant I scores with",
    },
    "network": {
        "backbone": "the frozen network that gives the features; image: the pixels themselves",
        "weights": "of the part that can start from published weights: auto, none, or the path of a file",
        "pretrained": "whether the encoder starts from published weights",
        "checkpoint": "which published weights weights=auto takes",
        "strides": "of the feature maps that are taken; empty: all of the backbone's stages",
        "layers": "blocks of a transformer whose outputs are the feature maps, from 1 on; empty: four, evenly spaced",
        "feature_size": "rows,columns of the fused feature map; one number: about its square, shaped as image_size",
        "resize": "how larger feature maps come to feature_size: bilinear, or area",
        "normalize": "of the features: none, or channel (mean 0 and deviation 1 over the training images)",
        "neighbourhood": "side of the squares of places whose mean is a vector",
        "bank": "vectors of good images that are kept, at most; of sivt 0: none, the map of the paper",
        "sampling": "which vectors are kept: random, or coreset (those that lie furthest apart)",
        "neighbours": "vectors of the bank around the nearest one, by which score=weighted weights",
        "patch": "side of a token: pixels of the image, or places of the feature map",
        "dim": "width of the transformer, or of its encoder",
        "depth": "blocks of the transformer; of dinomaly's decoder, an even number",
        "encoder_depth": "blocks of the encoder",
        "decoder_depth": "blocks of the decoder",
        "heads": "attention heads; they divide dim",
        "decoder_dim": "width of the decoder",
        "decoder_heads": "attention heads of the decoder",
        "mlp_ratio": "width of a block's hidden layer, in units of its own width",
        "induction": "whether tokens are reconstructed without themselves; false: a plain transformer",
        "subsets": "parts that the tokens are split into, each reconstructed from the others",
        "embedding": "what a token is made of: pixels, or frozen features of a convolutional backbone, by its name",
        "channels": "of the decoder's layers",
        "norm": "of the decoder's blocks: instance, or batch",
        "latent": "length of the vector between encoder and decoder",
        "memory": "whether there is a memory of normal features",
        "items": "of the memory",
        "temperature": "what the cosines of a token and the items are multiplied by: the larger, the fewer are read",
        "coordinate_attention": "whether there is coordinate attention",
        "attention_after": "where it is: after the memory, after the encoder, or after the decoder's first block",
        "vector": "length of the vector that the image is reconstructed from",
        "projection": "of the patches to that vector: shared, or one for each position",
        "decoder_side": "height and width that the vector is folded to",
        "density": "what the mixture depends on: linear (on the embedding), or position (on the place alone)",
        "covariance": "of the mixtures of positions: diagonal, or full",
        "gaussians": "components of the mixture",
        "min_std": "added to every deviation of the mixture",
        "variant": "the row of the paper's Table 3: ours, or I to VIII",
        "window": "side of the windows that are reconstructed instead of whole images, in pixels; 0: whole images",
        "windows": "windows drawn from each image in a training step",
        "stride": "pixels between the windows of an image that is scored",
    },
    "loss": {
        "cosine_weight": "of the cosine distance",
        "mse_weight": "of the squared error",
        "ssim_weight": "of the structural similarity",
        "ssim_window": "side of its window, in pixels; odd",
        "ssim_edge": "what its windows see beyond the edge, in a map: mirror, or zero (alike for every two images)",
        "entropy_weight": "of the entropy of the memory's weights",
        "pixel_weight": "of the pixel classifier",
        "positive_weight": "of corrupted pixels in the pixel classifier's loss; 0: both kinds count the same",
        "noise": "deviation of the noise on the features in training; 0: none",
        "dropout": "the share of values that the bottleneck loses in training, three times",
        "mining": "the share of places whose gradient is made smaller, because they are reconstructed best",
        "mining_factor": "what that gradient is multiplied by",
        "mining_steps": "steps in which that share grows from 0",
        "likelihood_trains": "what the likelihood's gradient reaches: mixture, or all",
        "freeze_encoder": "whether the second stage leaves the encoder as it is",
        "mask_ratio": "the share of patches that the first stage hides",
        "normalize_patches": "whether the first stage compares patches of mean 0 and deviation 1",
        "corrupt_share": "of the training images of the second stage",
        "corrupt_blocks": "blocks in a corrupted image, at most",
        "corrupt_size": "longest side of a block, as a share of the image's",
        "corrupt_visible": "smaller changes, of values from 0 to 1, are undone",
    },
}

# Settings that a finished run scores the same with, whatever they are: its checkpoint holds what came of them.
NOT_OF_SCORES = frozenset(
    (
        *MEANINGS[TRAINING],
        *MEANINGS[THRESHOLD],
        "train_images",
        "augment",
        "weights",
        "pretrained",
        "checkpoint",
        "start",
    )
)


def of_scores(config: TrainingConfig) -> list[str]:
    """The settings that the scores of a finished run depend on, each as ``--set`` takes it."""
    names = [name for name in kinds(type(config)) if name not in NOT_OF_SCORES]
    return [f"{name}={in_words(getattr(config, name))}" for name in names]


def described(config: TrainingConfig) -> Iterator[str]:
    """The settings of a config in lines: groups, and in each its settings with their values and meanings."""
    fields, known = kinds(type(config)), {name for own in MEANINGS.values() for name in own}
    own = {name: config.meanings.get(name, str(kind)) for name, kind in fields.items() if name not in known}
    for group, meanings in {**MEANINGS, "of this method": own}.items():
        names = [name for name in meanings if name in fields]
        if names:
            idle = group == TRAINING and not config.trains
            yield f"{group} (this method has none, so these do nothing):" if idle else f"{group}:"
        for name in names:
            yield f"  {name}={in_words(getattr(config, name))}".ljust(28) + f"  {meanings[name]}"


def in_words(value: object) -> str:
    """A value as ``--set`` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(in_words, value))
    return NONE if value is None else str(value).lower() if isinstance(value, bool) else str(value)
