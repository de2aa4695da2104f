"""Shares of a call of predict: every image once, and together the files of one process."""

import numpy as np
import pytest
from grey_predictor import Grey
from PIL import Image

from vitlite.data.prediction_files import SHARDS_FOLDER
from vitlite.data.shards import Shard
from vitlite.engine.predict import predict
from vitlite.errors import UserError


@pytest.fixture
def images(tmp_path):
    """23 images in folders that share names, of which two cannot be read."""
    for i in range(23):
        folder = tmp_path / "in" / f"line {i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), 11 * i, np.uint8)).save(folder / f"part{i // 3}.png")
    for name in ("line 0/part2.png", "line 1/part7.png"):
        (tmp_path / "in" / name).write_bytes(b"no image")
    return tmp_path / "in"


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and SHARDS_FOLDER not in path.parts
    }


@pytest.mark.parametrize("count", [1, 3, 9])
def test_shares_make_the_files_of_one_process(images, tmp_path, count):
    options = {"maps": True, "batch_size": 4, "group_by": r"part\d+"}
    whole = predict(Grey(), images, tmp_path / "whole", **options)
    rows = []
    for number in reversed(range(1, count + 1)):
        assert not (tmp_path / "out/predictions.csv").exists()
        rows += predict(Grey(), images, tmp_path / "out", shard=f"{number}/{count}", **options)
    assert sorted(row["file"] for row in rows) == sorted(row["file"] for row in whole)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_share_is_refused_resumed_and_replaced(images, tmp_path):
    out, second = tmp_path / "out", {"shard": "2/2", "batch_size": 4}
    predict(Grey(), images, out, **second)
    with pytest.raises(UserError, match=r"holds predictions\.csv of an earlier call"):
        predict(Grey(), images, out, **second)
    (images / "line 1/part7.png").write_bytes((images / "line 1/part6.png").read_bytes())
    assert sum("error" in row for row in predict(Grey(), images, out, resume=True, **second)) < 2
    (images / "line 1/part7.png").unlink()  # the shares would be of other images
    with pytest.raises(UserError, match="made with another images"):
        predict(Grey(), images, out, resume=True, **second)
    predict(Grey(), images, out, overwrite=True, **second)
    predict(Grey(), images, out, shard="1/2", batch_size=4)
    predict(Grey(), images, tmp_path / "whole", batch_size=4)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_share_that_is_scored_anew_leaves_no_table_of_earlier_rows(images, tmp_path):
    """Until all shares are scored there is no table of all, and no overlay of an image that is not given any more."""
    out, grouped = tmp_path / "out", {"group_by": r"part\d+"}
    predict(Grey(), images, out, **grouped)
    (out / "photograph.png").write_bytes(b"mine")
    overlays = {path.name for path in out.glob("*.png")}
    (images / "line 2/part6.png").unlink()
    predict(Grey(), images, out, shard="1/2", overwrite=True, threshold=50.0, batch_size=2, **grouped)
    assert not {"predictions.csv", "predictions.json", "parts.csv"} & {path.name for path in out.iterdir()}
    assert overlays - {path.name for path in out.glob("*.png")} == {"line 2_part6.png"}
    predict(Grey(), images, out, shard="2/2", overwrite=True, threshold=50.0, batch_size=2, **grouped)
    predict(Grey(), images, tmp_path / "whole", threshold=50.0, batch_size=2, **grouped)
    assert contents(out) == contents(tmp_path / "whole") | {"photograph.png": b"mine"}


def test_shares_of_different_calls_do_not_mix(images, tmp_path, caplog):
    predict(Grey(), images, tmp_path / "out", shard="1/2")
    assert "share" not in caplog.text.replace(str(tmp_path), "")
    predict(Grey(), images, tmp_path / "out", shard="2/2", threshold=50.0)
    assert "share 1/2 was scored with another image_threshold: no table of all yet" in caplog.text
    assert not (tmp_path / "out/predictions.csv").exists()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", ""])
def test_what_is_no_share(text):
    with pytest.raises(UserError, match="must be I/N"):
        Shard.parse(text)
