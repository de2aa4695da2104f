"""The benchmark of methods: cells are measured once, controls are at chance, operations are counted by hand."""

import csv
import json
import re
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from tiny_settings import WITH_BACKBONE, options_of

from vitlite.bench import __main__ as benchmarks
from vitlite.bench import methods as bench
from vitlite.bench._methods_table import markdown, plot
from vitlite.data import DRAWN, synthesize
from vitlite.errors import UserError
from vitlite.export.operations import operations_of
from vitlite.methods import REGISTRY
from vitlite.methods.sivt import SIVT
from vitlite.methods.vtadl import QUICK, VTADL

SETTINGS = options_of(WITH_BACKBONE | {"bank": 0}, "sivt:")  # without a search, which an untrained one has not


def arguments(data, out, *more):
    return ["--methods", "sivt", "--data", str(data), "--out", str(out), "--images", "4", *SETTINGS, *more]


@pytest.fixture(scope="module")
def measured(tmp_path_factory, tiny_data):
    out = tmp_path_factory.mktemp("bench") / "out"
    assert bench.main(arguments(tiny_data, out, "--markdown", str(out.parent / "table.md"))) == 0
    with open(out / "methods.csv", newline="") as file:
        return out, list(csv.DictReader(file))


def test_the_table_holds_what_was_measured(measured):
    out, rows = measured
    head = (out / "methods.csv").read_text().splitlines()[0].split(",")
    assert len(set(head)) == len(head)
    assert [row["kind"] for row in rows] == ["trained", "untrained", "constant map"]
    trained = rows[0]
    run = out / "set/sivt/trained-0/run"
    results = json.loads((run / "results.json").read_text())
    for key in bench.SCORES:
        assert float(trained[key]) == results["mean"][key]
    assert float(trained["training_seconds"]) == results["training_seconds"] > 0
    assert float(trained["images_per_second"]) > 0
    assert trained["weights"] == "efficientnet_lite0 (random (seed 0))"
    assert int(trained["parameters"]) > int(trained["trained_parameters"]) > 0
    assert trained["operations"] == rows[1]["operations"]
    assert int(trained["peak_mib"]) > 100 or sys.platform != "linux"
    assert re.fullmatch(r"([0-9a-f]{9}\+?)?", trained["commit"])
    text = (out.parent / "table.md").read_text().splitlines()
    assert text[2].startswith(f"| set | sivt | {100 * results['mean']['image_auroc']:.1f} |")
    assert "sivt, untrained" in text[3]
    assert "constant map" in text[4]
    assert {line.count("|") for line in text[:5]} == {text[0].count("|")}


def test_the_plot_names_methods_and_their_means(tmp_path):
    pytest.importorskip("matplotlib")
    base = {"kind": "trained", "seed": 0}
    rows = [
        {**base, "method": "m", "data": "a", "training_seconds": 60.0, "image_auroc": 0.9},
        {**base, "method": "m", "data": "b", "training_seconds": 180.0, "image_auroc": 0.7},
        {**base, "method": "n", "data": "a", "training_seconds": None, "image_auroc": 0.7},
    ]
    plot(rows, tmp_path / "plot.svg")
    assert "m: mean 0.800, 2.0 min" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(UserError, match=r"plot\.foo"):
        plot(rows, tmp_path / "plot.foo")


def test_controls_can_be_measured_alone(tiny_data, tmp_path, capsys):
    assert bench.main(arguments(tiny_data, tmp_path / "out", "--no-training", "--seeds", "2")) == 0
    with open(tmp_path / "out" / "methods.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["seed"]) for row in rows] == [
        ("untrained", "0"),
        ("untrained", "1"),
        ("constant map", "0"),
    ]
    assert rows[0]["image_auroc"] != rows[1]["image_auroc"] or rows[0]["pixel_auroc"] != rows[1]["pixel_auroc"]


@pytest.mark.slow
def test_untrained_networks_do_not_see_what_is_drawn(tmp_path):
    """Image AUROC on drawn defects, of which brightness alone tells nothing."""
    root = synthesize(tmp_path / "set", kinds=DRAWN, train=1, good=80, defects=20, seed=11)
    assert bench.main(["--data", str(root), "--out", str(tmp_path / "out"), "--no-training"]) == 0
    with open(tmp_path / "out" / "methods.csv", newline="") as file:
        found = {row["method"]: float(row["image_auroc"]) for row in csv.DictReader(file) if row["kind"] == "untrained"}
    assert set(found) == set(REGISTRY)
    assert all(0.45 <= value <= 0.6 for value in found.values()), found


def test_a_constant_map_is_chance(measured):
    constant = measured[1][-1]
    assert float(constant["image_auroc"]) == 0.5
    assert float(constant["pixel_auroc"]) == 0.5
    assert float(constant["aupro_30"]) == pytest.approx(0.15)
    assert constant["training_seconds"] == constant["parameters"] == ""


def test_finished_cells_are_not_measured_again(measured, tiny_data, monkeypatch, capsys):
    out, rows = measured
    monkeypatch.setattr(bench, "MEASURES", {})
    assert bench.main(arguments(tiny_data, out)) == 0
    assert f"{100 * float(rows[0]['image_auroc']):.1f}" in capsys.readouterr().out
    with open(out / "methods.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)


def test_a_table_is_gathered_over_several_calls(tmp_path, tiny_data):
    """The rows of other data sets stay; those of the same cell are replaced."""
    out, other = tmp_path / "out", shutil.copytree(tiny_data, tmp_path / "other")
    for data in (tiny_data, other, other):
        assert bench.main(arguments(data, out, "--no-training")) == 0
    with open(out / "methods.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["data"] for row in rows] == [tiny_data.name] * 2 + ["other"] * 2
    assert {row["kind"] for row in rows} == {"untrained", "constant map"}


def test_untrained_weights_are_those_before_training(measured):
    out, _ = measured
    state = torch.load(out / "set/sivt/untrained-0/run/checkpoint.pt", weights_only=True)["model"]
    trained = torch.load(out / "set/sivt/trained-0/run/checkpoint.pt", weights_only=True)["model"]
    torch.manual_seed(0)
    fresh = SIVT(bench.config_of("sivt", bench.parse(SETTINGS))).state_dict()
    assert all(torch.equal(state[key], fresh[key]) for key in state)
    assert not torch.equal(state["transformer.head.weight"], trained["transformer.head.weight"])


def test_operations_of_vtadl_by_hand():
    """Patch embedding, one block, projection, five transposed convolutions and the mixture, two a multiply-add."""
    config = {"image_size": 64, "patch": 16, "dim": 16, "depth": 1, "heads": 2, "vector": 64, "gaussians": 3}
    config |= {"channels": (8, 8, 8, 8), "mlp_ratio": 2.0, "projection": "shared", "density": "linear"}
    method = VTADL(replace(QUICK, **config)).eval()
    tokens, dim = 16, 16
    products = tokens * (16 * 16 * 3 * dim + 4 * dim * dim + 2 * dim * 2 * dim) + 2 * tokens * tokens * dim
    products += dim * 64 + tokens * dim * 3 * (1 + 2 * dim)
    # A transposed convolution multiplies every input pixel with its whole kernel: strides 2, 2, 2, 1, 1 from 8 pixels.
    for side, before, after, kernel in [(8, 1, 8, 4), (16, 8, 8, 4), (32, 8, 8, 4), (64, 8, 8, 3), (64, 8, 3, 3)]:
        products += side * side * before * after * kernel * kernel
    # Bilinear upsampling is two products as well: (64, 4) @ (4, 4) @ (4, 64); of the map, and of the compared one.
    products += 2 * (64 * 4 * 4 + 64 * 4 * 64)
    assert operations_of(method) == 2 * products


def test_settings_for_one_method():
    options = bench.parse(["--set", "sivt:dim=96", "--set", "vtadl:gaussians=7", "--set", "lr=0.5"])
    assert bench.config_of("sivt", options).dim == 96
    assert bench.config_of("vtadl", options).gaussians == 7
    assert bench.config_of("vtadl", options).lr == bench.config_of("sivt", options).lr == 0.5
    own = bench.config_of("sivt+dim=48+lr=0.25", options)
    assert (own.dim, own.lr) == (48, 0.25)


def test_seeds_are_put_together():
    texts = {"data": "d", "kind": "trained", "method": "m", "preset": "quick", "settings": "", "weights": "none"}
    numbers = {"parameters": 2_500_000, "operations": 3e9, "images_per_second": 10.0, "training_seconds": 60.0}
    about = {"processor": "p", "threads": 2, "torch": "t", "date": "today"}
    base = {**texts, **numbers, **about, "models": 1, **dict.fromkeys(bench.SCORES, 0.9)}
    rows = [{**base, "seed": seed, "image_auroc": value} for seed, value in enumerate((0.7, 0.8, 0.9))]
    line = markdown(rows).splitlines()[2]
    assert "| 80.0 ± 10.0 |" in line
    assert "| 2.5 M | 3 G | 10 | 60 s |" in line


def test_one_model_for_each_category(tiny_data, tmp_path, capsys):
    both = tmp_path / "both"
    for name in ("one", "two"):
        shutil.copytree(tiny_data / "weave", both / name)
    options = ["--separate", "all", "--no-controls", "--set", "steps=2"]
    assert bench.main(arguments(both, tmp_path / "out", *options)) == 0
    with open(tmp_path / "out/methods.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    runs = [tmp_path / "out/both/sivt/separate-0" / name for name in ("one", "two")]
    results = [json.loads((run / "results.json").read_text()) for run in runs]
    assert [list(part["categories"]) for part in results] == [["one"], ["two"]]
    for key in bench.SCORES:
        assert float(row[key]) == pytest.approx(sum(part["mean"][key] for part in results) / 2)
    assert float(row["training_seconds"]) == pytest.approx(sum(part["training_seconds"] for part in results))
    assert "| both | sivt, 2 models |" in capsys.readouterr().out


def test_separate_names_a_method(tmp_path):
    with pytest.raises(UserError, match="--separate memca: "):
        bench.main(["--methods", "sivt", "--separate", "memca", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_missing_data_set_is_one_line(tmp_path, monkeypatch, capsys):
    options = ["methods", "--methods", "sivt", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["bench", *options])
    with pytest.raises(SystemExit) as end:
        benchmarks.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == f"vitlite: {tmp_path / 'none'}: no such folder\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["markdown", "plot"])
def test_a_file_that_cannot_be_written_is_refused_before_the_training(tmp_path, option):
    if option == "plot":
        pytest.importorskip("matplotlib")
    place = tmp_path / "x.svg"
    place.mkdir()
    with pytest.raises(UserError, match=f"{option}={place}: is a folder; name the file"):
        bench.main(["--methods", "sivt", "--out", str(tmp_path / "out"), f"--{option}", str(place)])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--seeds", "0"], ["--images", "0"], ["--nothing"]])
def test_wrong_options_end_with_2(options):
    with pytest.raises(SystemExit) as end:
        bench.parse(options)
    assert end.value.code == 2
