"""``vitlite eval-maps`` from end to end."""

import json

import numpy as np
import pytest

from vitlite.cli import main
from vitlite.data import open_dataset, synthesize
from vitlite.data.map_files import truth
from vitlite.images.maps import write_map
from vitlite.metrics import evaluate_maps


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("surfaces") / "data"
    synthesize(root, seed=0, categories="weave,wood", size=64, train=1, good=2, defects=1)
    return root


@pytest.fixture
def maps(data, tmp_path):
    rng = np.random.default_rng(0)
    for sample in open_dataset(data, "all", need_train=False).test:
        path = tmp_path / "maps" / sample.category / "test" / sample.defect / f"{sample.path.stem}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = truth(sample)
        write_map(path, mask + rng.standard_normal(mask.shape))
    return tmp_path / "maps"


def call(capsys, *args):
    with pytest.raises(SystemExit) as end:
        main(["eval-maps", *map(str, args)])
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


def test_scores_table_json_and_csv(data, maps, tmp_path, capsys):
    code, out, err = call(capsys, maps, "--data", data, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(found["categories"]) == ["weave", "wood"]
    assert (tmp_path / "out" / "results.csv").read_text().count("\n") == 4
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["weave", "wood", "mean"]
    samples = open_dataset(data, "wood", need_train=False).test
    from vitlite.images.maps import read_map

    values = [read_map(maps / "wood" / "test" / s.defect / f"{s.path.stem}.tiff") for s in samples]
    expected = evaluate_maps([truth(s) for s in samples], values)
    assert found["categories"]["wood"]["aupro_30"] == expected["aupro_30"]
    assert f"{100 * expected['aupro_30']:.2f}" in lines[2]


def test_results_go_beside_the_maps_by_default_and_can_be_written_again(data, maps, capsys):
    for _ in range(2):
        assert call(capsys, maps, "--data", data, "--category", "weave")[0] == 0
    assert list(json.loads((maps / "results.json").read_text())["categories"]) == ["weave"]


def test_mistakes_are_one_line_and_leave_no_result(data, maps, tmp_path, capsys):
    next((maps / "wood").rglob("*.tiff")).unlink()
    code, out, err = call(capsys, maps, "--data", data, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "missing: 1 (wood/test/" in err
    assert not (tmp_path / "out").exists()
    code, _, err = call(capsys, maps, "--data", data, "--category", "wod")
    assert (code, err.count("\n")) == (2, 1)
    assert "wood" in err
    assert call(capsys, tmp_path / "nowhere", "--data", data)[0] == 2
    assert call(capsys, maps)[0] == 2
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, _, err = call(capsys, maps, "--data", data, "--category", "weave", "--out", blocked / "out")
    assert code == 2
    assert "out" in err


def test_help_needs_neither_torch_nor_numba(capsys):
    import subprocess
    import sys

    code = (
        "import sys; from vitlite.cli import main\n"
        "try: main(['eval-maps', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numba'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "MAPS/<category>/test/<defect>/<stem>.tiff" in found.stdout
