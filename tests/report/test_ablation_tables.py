"""What stands beside an ablation: sizes, categories of the paper, what one model for all loses; and its plot."""

from dataclasses import replace

import pytest

from vitlite.data.layouts.cifar10 import NAMES as CIFAR10
from vitlite.engine.ablate import Outcome, Plan, both_modes
from vitlite.errors import UserError
from vitlite.methods import REGISTRY, method_class
from vitlite.methods.ablations import Row, Table
from vitlite.report.ablation import class_text, plot, reduction_text, table_text

BY_CATEGORY = {"image_auroc": {"nut": 91.0, "pill": 70.0}}
ROWS = (
    Row("small", (), {"image_auroc": 80.0}, {"image_auroc": 90.0}, BY_CATEGORY),
    Row("large", ("depth=9",)),
)
TABLE = Table("depth", "Fig. 0", "made up", ("image_auroc", "pixel_auroc"), ROWS)
PLAN = Plan("sivt", "parts")
# The means of MNIST and CIFAR-10 (AnoViT, Table 1; VT-ADL, Table II), and of MVTec AD for rows of classes.
DIGITS = [str(number) for number in range(10)]
CLASSES = {*DIGITS, *CIFAR10}
MEANS = {"L2-CAE": (90.8, 56.9), "AnoViT": (92.4, 60.1), "VT-ADL": (98.4, None)}
CLASS_ROWS = {"L2-CAE": {"image_auroc": 73, "pixel_auroc": 81}, "AnoViT": {"image_auroc": 78, "pixel_auroc": 83}}
WITH_FIGURES = [
    (name, row)
    for name in REGISTRY
    for table in method_class(name).ablations.values()
    for row in table.rows
    if row.by_category
]


def outcome(row, image, pixel, size, models=1):
    values = {"image_auroc": image, "pixel_auroc": pixel}
    sizes = {"parameters": size * 10**6, "trained_parameters": 10**5, "operations": size * 10**9}
    return Outcome(row, values, 1.0, {"nut": values, "screw": values}, models, sizes)


OUTCOMES = [outcome(ROWS[0], 0.75, None, 3), outcome(ROWS[1], 0.8, 0.9, 12)]


def cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_sizes_and_categories_stand_beside_the_figures():
    lines = table_text(TABLE, OUTCOMES, PLAN).splitlines()
    assert cells(lines[0]) == ["depth", "image AUROC", "paper", "pixel AUROC", "parameters", "operations"]
    assert cells(lines[1]) == ["small", "75.0", "80.0", "-", "3 M", "3 G"]
    assert cells(lines[2]) == ["large", "80.0", "-", "90.0", "12 M", "12 G"]
    assert cells(lines[4]) == ["by category", "category", "image AUROC", "paper", "pixel AUROC"]
    assert cells(lines[5]) == ["small", "nut", "75.0", "91.0", "-"]  # ours has no pill, the paper no screw
    assert lines[6].startswith("ours: parts")


def test_the_reduction_is_relative_to_one_model_each():
    """As SIVT's Table II: (90.1 - 97.5) / 97.5 is -7.6 %. The parameters of 5 models each are 5 times as many."""
    each = [outcome(ROWS[0], 0.975, 0.973, 4, models=5)]
    together = [outcome(ROWS[0], 0.901, 0.938, 4)]
    head, line, *_ = reduction_text(TABLE, each, together, PLAN).splitlines()
    assert cells(head)[1:] == [
        *("image AUROC", "reduction", "paper", "reduction"),
        *("pixel AUROC", "reduction", "parameters (M)", "reduction"),
    ]
    assert cells(line)[1:] == [
        *("97.5 / 90.1", "-7.6 %", "90.0 / 80.0", "-11.1 %"),
        *("97.3 / 93.8", "-3.6 %", "20 / 4", "-80.0 %"),
    ]


def class_outcome(row, *scores):
    categories = {str(n): {"image_auroc": score, "pixel_auroc": None} for n, score in enumerate(scores)}
    return Outcome(row, {"image_auroc": sum(scores) / len(scores), "pixel_auroc": None}, 1.0, categories, len(scores))


def test_classes_have_a_line_each_and_rows_are_set_beside_the_baseline():
    """Relative improvement, as AnoViT's Table 2: of class 0, 0.980 against 0.938 are 4.478 %."""
    figures = {"old": {"0": 93.8, "1": 99.4}, "new": {"0": 98.0, "1": 98.6}}
    rows = [Row(label, by_category={"image_auroc": values}) for label, values in figures.items()]
    table = Table("class", "Table 2", "digits", ("image_auroc", "pixel_auroc"), tuple(rows), True, "old")
    outcomes = [class_outcome(rows[0], 0.5, 0.8), class_outcome(rows[1], 0.6, 0.6)]
    lines = class_text(table, outcomes, PLAN).splitlines()
    assert lines[0] == "image AUROC:"  # no column of pixels, which nobody measured
    assert [cells(line) for line in lines[1:6]] == [
        ["class", "old", "paper", "new", "paper", "improvement", "paper"],
        ["0", "50.0", "93.8", "60.0", "98.0", "+20.0 %", "+4.5 %"],
        ["1", "80.0", "99.4", "60.0", "98.6", "-25.0 %", "-0.8 %"],
        ["mean", "65.0", "96.6", "60.0", "98.3", "-7.7 %", "+1.8 %"],
        ["std", "21.2", "4.0", "0.0", "0.4"],
    ]
    assert "one model for each category" in lines[7]
    # Without the baseline there is nothing to improve on, and without figures of a paper no column for them.
    assert cells(class_text(table, outcomes[1:], PLAN).splitlines()[1]) == ["class", "new", "paper"]
    bare = [class_outcome(Row("new"), 0.6, 0.6)]
    assert cells(class_text(table, bare, PLAN).splitlines()[1]) == ["class", "new"]


def test_one_category_has_no_two_modes(tiny_data, tmp_path):
    with pytest.raises(UserError, match="category=weave: one category"):
        both_modes(replace(PLAN, data=str(tiny_data), category="weave"), TABLE, tmp_path)


def test_the_plot_names_the_rows(tmp_path):
    pytest.importorskip("matplotlib")
    for against in ("operations", "parameters"):
        plot(TABLE, OUTCOMES, tmp_path / "plots" / f"{against}.svg", against)
        text = (tmp_path / "plots" / f"{against}.svg").read_text()
        assert all(f"<!-- {part} -->" in text for part in ("small", "large", "image AUROC", "pixel AUROC"))
        assert f"<!-- {against} (" in text
    with pytest.raises(UserError, match=r"plot=.*plot\.foo: its ending must be one of"):
        plot(TABLE, OUTCOMES, tmp_path / "plot.foo")


@pytest.mark.parametrize(("name", "row"), WITH_FIGURES, ids=lambda value: getattr(value, "label", value))
def test_a_papers_categories_have_the_mean_that_it_prints(name, row):
    for metric, every in row.by_category.items():
        figures = [value for category, value in every.items() if category not in CLASSES]
        if not figures:
            continue
        assert len(figures) == 15
        printed = row.paper.get(metric) or CLASS_ROWS[row.label][metric]
        # AnoViT rounds to whole percent. MemCA's Table 3 has a mean of 91.4, and prints 91.2.
        assert sum(figures) / 15 == pytest.approx(printed, abs=0.55 if name == "anovit" else 0.2)


@pytest.mark.parametrize(("name", "row"), WITH_FIGURES, ids=lambda value: getattr(value, "label", value))
def test_its_classes_too(name, row):
    every = row.by_category.get("image_auroc", {})
    for classes, printed in zip((DIGITS, CIFAR10), MEANS.get(row.label, ())):
        figures = [every[one] for one in classes if one in every]
        assert len(figures) == (0 if printed is None else 10)
        if figures:
            # The digits of L2-CAE have a mean of 90.76, those of VT-ADL one of 98.46, cut off to 98.4.
            assert sum(figures) / 10 == pytest.approx(printed, abs=0.07)
