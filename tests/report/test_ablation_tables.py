"""What stands beside an ablation: sizes, categories of the paper, what one model for all loses; and its plot."""

from dataclasses import replace

import pytest

from vitlite.engine.ablate import Outcome, Plan, both_modes
from vitlite.errors import UserError
from vitlite.methods import REGISTRY, method_class
from vitlite.methods.ablations import Row, Table
from vitlite.report.ablation import plot, reduction_text, table_text

BY_CATEGORY = {"image_auroc": {"nut": 91.0, "pill": 70.0}}
ROWS = (
    Row("small", (), {"image_auroc": 80.0}, {"image_auroc": 90.0}, BY_CATEGORY),
    Row("large", ("depth=9",)),
)
TABLE = Table("depth", "Fig. 0", "made up", ("image_auroc", "pixel_auroc"), ROWS)
PLAN = Plan("sivt", "parts")
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
    for metric, figures in row.by_category.items():
        assert len(figures) == 15
        # AnoViT rounds to whole percent. MemCA's Table 3 has a mean of 91.4, and prints 91.2.
        assert sum(figures.values()) / 15 == pytest.approx(row.paper[metric], abs=0.55 if name == "anovit" else 0.2)
