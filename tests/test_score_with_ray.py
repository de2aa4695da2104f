"""The example for Ray Data: the rows of one process, from a folder and from Parquet, though a worker dies."""

import io
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitlite
from vitlite.engine.predict import predict

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/score_with_ray.py"
OLD = ROOT / "tests/old_run"
pytestmark = pytest.mark.skipif(not EXAMPLE.exists(), reason="the examples are in the clone only")


@pytest.fixture(scope="module")
def example():
    ray = pytest.importorskip("ray")
    pytest.importorskip("pyarrow")
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield runpy.run_path(str(EXAMPLE))
    ray.shutdown()


@pytest.fixture
def images(tmp_path):
    """12 images, of which one cannot be read."""
    folder = tmp_path / "images"
    shutil.copytree(OLD / "data/weave/test", folder / "a")
    shutil.copytree(OLD / "data/weave/test", folder / "b")
    (folder / "b/spot/000.png").write_bytes(b"no image")
    return folder


def read(folder):
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(folder).to_pylist()
    return {row["file"]: row for row in rows}, len(rows)


def check(rows, plain, maps):
    """Rows of the example, by file, against those of one process, whose maps are in a folder."""
    assert set(rows) == set(plain)
    for file, row in rows.items():
        own = plain[file]
        assert row["error"] == own.get("error", "")
        if "error" in own:
            continue
        assert row["score"] == pytest.approx(own["score"], rel=1e-4)
        assert row["verdict"] == own["verdict"]
        assert row["regions"] == ";".join(" ".join(map(str, box)) for box in own["regions"])
        map_of = [np.asarray(Image.open(data)) for data in (io.BytesIO(row["map"]), maps / own["map"])]
        assert np.allclose(*map_of, rtol=1e-3, atol=1e-5)


def test_what_a_worker_does_with_a_batch(images, tmp_path):
    pytest.importorskip("onnxruntime")
    detector = vitlite.load(OLD / "runs/anovit/model.onnx")
    plain = {row["file"]: row for row in predict(detector, images, tmp_path / "one", maps=True)}
    scorer = runpy.run_path(str(EXAMPLE))["Scorer"](detector, True)
    batch = {"file": list(plain), "image": [Path(file).read_bytes() for file in plain]}
    columns = scorer(batch)
    assert {len(column) for column in columns.values()} == {len(plain)}
    # With and without an error the columns have one type: they are one table in Parquet.
    whole = scorer({key: column[:1] for key, column in batch.items()})
    assert not any(whole["error"])
    assert any(columns["error"])
    assert [np.asarray(c).dtype.kind for c in whole.values()] == [np.asarray(c).dtype.kind for c in columns.values()]
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    check({row["file"]: row for row in rows}, plain, tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["folder", "parquet"])
def test_the_rows_of_one_process_though_a_worker_dies(example, images, tmp_path, source):
    import pyarrow
    import pyarrow.parquet

    run, died = OLD / "runs/anovit", str(tmp_path / "died")
    plain = {row["file"]: row for row in predict(vitlite.load(run, "cpu"), images, tmp_path / "one", maps=True)}
    given = str(images)
    if source == "parquet":
        given = str(tmp_path / "images.parquet")
        table = {"file": list(plain), "image": [Path(file).read_bytes() for file in plain]}
        pyarrow.parquet.write_table(pyarrow.table(table), given)

    class DiesOnce(example["Scorer"]):
        def __call__(self, batch):
            try:
                os.mkdir(died)
            except FileExistsError:
                return super().__call__(batch)
            os._exit(1)

    example["score"](run, given, str(tmp_path / "rows"), batch_size=3, maps=True, scorer=DiesOnce)
    assert os.path.isdir(died)
    rows, count = read(tmp_path / "rows")
    assert count == len(plain)
    check(rows, plain, tmp_path / "one")
