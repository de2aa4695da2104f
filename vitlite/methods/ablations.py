"""The papers' ablation tables as data: which settings each row changes, and the figures printed beside it.

A table is plain data, so that ``vitlite ablate`` needs to know nothing of a method. A method module may bring its own
in ``ABLATIONS`` (name -> :class:`Table`); those of the published methods are all here.
"""

import importlib
from dataclasses import dataclass, field

from vitlite.errors import UserError
from vitlite.methods import REGISTRY


@dataclass(frozen=True)
class Row:
    """One line: its label, ``KEY=VALUE`` settings, and the paper's figures in percent (metric name -> figure)."""

    label: str
    overrides: tuple = ()
    paper: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """One ablation: where the paper has it, what its figures were measured on, the columns, and the rows."""

    title: str
    source: str  # table or figure of the paper
    about: str  # of the paper's figures
    columns: tuple  # keys of a result, in the paper's order
    rows: tuple


MVTEC_ONE = "MVTec AD, mean of 15 categories, one model each"
MVTEC_ALL = "MVTec AD, mean of 15 categories, one model for all"
PLOTTED = "; the paper plots the figures that are not given here and prints no numbers"
AUROC = ("image_auroc", "pixel_auroc")
BOTH = (*AUROC, "image_ap", "pixel_ap")

# sivt: Fig. 4 to 6; numbers from Table I and the margins that Section IV.C.2 states for the vanilla transformer.
FULL = {"image_auroc": 96.4, "pixel_auroc": 96.9, "image_ap": 98.6, "pixel_ap": 50.9}
VANILLA = {"image_auroc": 84.4, "pixel_auroc": 90.1, "image_ap": 92.4, "pixel_ap": 30.4}
SIVT = {
    "extractor": Table(
        "feature extraction",
        "Fig. 4",
        MVTEC_ALL + PLOTTED,
        AUROC,
        (
            Row("image reconstruction", ("backbone=image",)),
            Row("MobileNet", ("backbone=mobilenet_v2",)),
            Row("VGG19", ("backbone=vgg19",)),
            Row("ResNet34", ("backbone=resnet34",)),
            Row("EfficientNet-B4", ("backbone=efficientnet_b4",), FULL),
        ),
    ),
    "induction": Table(
        "self-induction",
        "Fig. 6",
        MVTEC_ALL + "; vanilla: Table I less the margins of Section IV.C.2",
        BOTH,
        (
            Row("vanilla transformer", ("induction=false",), VANILLA),
            Row("self-induction", ("induction=true",), FULL),
        ),
    ),
    "subsets": Table(
        "number of subsets N",
        "Fig. 5a",
        MVTEC_ALL + PLOTTED,
        AUROC,
        tuple(Row(f"N = {n}", (f"subsets={n}",), FULL if n == 4 else {}) for n in range(2, 9)),
    ),
    "patch": Table(
        "patch size P",
        "Fig. 5b",
        MVTEC_ALL + PLOTTED,
        AUROC,
        tuple(Row(f"P = {p}", (f"patch={p}",), FULL if p == 2 else {}) for p in (1, 2, 4, 8)),
    ),
}


def _modules(label, memory, attention, *figures):
    switches = (f"memory={memory}", f"coordinate_attention={attention}")
    return Row(label, switches, dict(zip((*AUROC, "aupro_30"), figures)))


MEMCA = {
    "modules": Table(
        "memory module (M) and coordinate attention (CA)",
        "Table 6",
        MVTEC_ONE,
        (*AUROC, "aupro_30"),
        (
            _modules("Base", "false", "false", 82.2, 83.8, 79.6),
            _modules("Base + M", "true", "false", 85.7, 91.8, 90.5),
            _modules("Base + CA", "false", "true", 84.5, 86.4, 85.7),
            _modules("Base + M + CA", "true", "true", 91.2, 93.0, 92.3),
        ),
    ),
}

VTADL = {
    "gaussians": Table(
        "number of Gaussians",
        "Fig. 4",
        MVTEC_ONE + PLOTTED,
        ("aupro_30",),
        tuple(Row(f"K = {k}", (f"gaussians={k}",)) for k in (1, 10, 50, 100, 150, 200)),
    ),
    "noise": Table(
        "noise on the features, 150 Gaussians",
        "Section V.C",
        MVTEC_ONE,
        ("aupro_30",),
        (
            Row("without noise", ("noise=0",), {"aupro_30": 80.7}),
            Row("with noise N(0, 0.2)", ("noise=0.2",), {"aupro_30": 89.7}),
        ),
    ),
    "likelihood": Table(
        "what the likelihood trains",
        "ours: the paper does not compare",
        "none",
        ("image_auroc", "pixel_auroc", "aupro_30"),
        (
            Row("everything", ("likelihood_trains=all", "density_epochs=0")),
            Row("the mixture alone", ("likelihood_trains=mixture", "density_epochs=0")),
        ),
    ),
}

# anovit: the paper compares with l2cae only; its figures are those of Table 1, with ImageNet weights.
VIT_BASE = ("patch=16", "dim=768", "depth=12", "heads=12")
ANOVIT = {
    "weights": Table(
        "weights of the encoder (ViT-B/16)",
        "Table 1",
        MVTEC_ONE + "; the paper has no row from scratch",
        AUROC,
        (
            Row("from scratch", ("pretrained=false", *VIT_BASE)),
            Row("ImageNet", ("pretrained=true", *VIT_BASE), {"image_auroc": 78.0, "pixel_auroc": 83.0}),
        ),
    ),
    "heads": Table(
        "attention heads, from scratch",
        "ours: the paper names 8 and does not compare",
        "none",
        AUROC,
        tuple(Row(f"{n} heads", ("pretrained=false", f"heads={n}")) for n in (2, 4, 8, 16)),
    ),
}


def variant_settings(name):
    """The paper's encoder stays as it is after the first stage, which models II to V do not have."""
    return (f"variant={name}", "freeze_encoder=true")


ISSTAD = {
    "variants": Table(
        "training and scoring, Models I to VIII",
        "Tables 4 and 5",
        MVTEC_ONE + ", the best epoch on the test set",
        AUROC,
        tuple(
            Row("ours" if name == "ours" else f"Model {name}", variant_settings(name), dict(zip(AUROC, figures)))
            for name, *figures in (
                ("I", 76.0, 84.2),
                ("II", 76.4, 87.6),
                ("III", 78.1, 87.8),
                ("IV", 88.6, 77.3),
                ("V", 90.8, 88.4),
                ("VI", 75.2, 87.5),
                ("VII", 81.8, 92.3),
                ("VIII", 97.3, 92.6),
                ("ours", 97.6, 96.1),
            )
        ),
    ),
}

TABLES = {"sivt": SIVT, "anovit": ANOVIT, "memca": MEMCA, "vtadl": VTADL, "isstad": ISSTAD}


def tables(method):
    """The ablation tables of a method by name; ``UserError`` where it has none."""
    module = importlib.import_module(REGISTRY[method][0])
    found = {**TABLES.get(method, {}), **getattr(module, "ABLATIONS", {})}
    if not found:
        known = ", ".join(name for name in TABLES if name in REGISTRY)
        raise UserError(f"--method {method}: has no ablation table; there are tables for {known}")
    return found
