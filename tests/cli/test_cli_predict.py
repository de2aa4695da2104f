"""predict as a person or a script calls it: rows on standard output, images from there, a folder that is watched."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import refused, rows_of, vitlite
from PIL import Image

from vitlite.cli._rows import sentence
from vitlite.images.known import ADVICE, KEY
from vitlite.images.panels import GAP, LINE, SIDE

OLD = Path(__file__).parents[1] / "old_run"  # a trained run and its exported file, which need not be made
RUN = OLD / "runs/anovit/model.onnx"


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    """Six images, in "images" of the working folder."""
    pytest.importorskip("onnxruntime")
    shutil.copytree(OLD / "data/weave/test", tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    return sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "images").rglob("*.png"))


@pytest.fixture
def stdin(monkeypatch):
    """What sets the contents of standard input."""

    def contain(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))

    return contain


def parsed(out):
    return [json.loads(line) for line in out.splitlines()]


def test_rows_on_standard_output_are_those_of_the_table(images):
    out, err = vitlite("predict", RUN, "images", "--format", "jsonl", "--out", "whole", "--fail-on-defect", code=1)
    table = rows_of("whole/predictions.csv")
    assert [row["file"] for row in parsed(out)] == images
    assert "of 6 images defective" in err
    for row, written in zip(parsed(out), table):
        assert {key: f"{row[key]:g}" for key in ("score", "percentile")} == {
            key: f"{float(written[key]):g}" for key in ("score", "percentile")
        }
        assert (row["verdict"], row["overlay"], row["error"]) == (written["verdict"], written["overlay"], None)
        assert ";".join(" ".join(map(str, box)) for box in row["regions"]) == written["regions"]
    out, _ = vitlite("predict", RUN, "images", "--format", "csv", "--group-by", r"/(\w+)/\d+", "--quiet")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["score"] for row in rows] == [row["score"] for row in table]
    good = [(row["part_images"], row["part_verdict"]) for row in rows if row["part"] == "good"]
    assert [count for count, _ in good] == ["1", "2", "3"]
    assert {verdict for _, verdict in good} <= {"good", "defect"}


def test_parts_are_drawn_beside_each_image(images):
    options = ("--out", "p", "--parts", "--no-overlays", "--device", "cpu")
    vitlite("predict", OLD / "runs/isstad", *images[:2], *options)
    *_, row = rows_of("p/predictions.csv")
    drawn = Path("p", row["parts"])
    panels, whole = 5, drawn.read_bytes()  # image, reconstruction, error, probability, map
    assert row["overlay"] == ""
    assert drawn.parent == Path("p/parts")
    with Image.open(drawn) as strip:
        assert strip.size == (panels * (SIDE + GAP) + GAP, SIDE + LINE + GAP)
    drawn.unlink()
    refused(
        "predict", OLD / "runs/isstad", *images[:2], "--out", "p", "--no-overlays", "--resume", says="another parts"
    )
    vitlite("predict", OLD / "runs/isstad", *images[:2], *options, "--resume")
    assert drawn.read_bytes() == whole
    refused(
        "predict", RUN, "images", "--out", "q", "--parts", says="--parts: an exported file gives maps and scores alone"
    )
    refused("predict", OLD / "runs/isstad", images[0], "--parts", says="--parts: needs --out, a folder")


def test_one_image_without_a_folder(images, stdin):
    out, err = vitlite("predict", RUN, images[3], "--quiet")
    assert out.startswith(f"{images[3]}: defect, score ")
    assert err == ""
    stdin(Path(images[3]).read_bytes())
    assert vitlite("predict", RUN, "--stdin-image")[0] == out.replace(images[3], "-")
    stdin(Path(images[3]).read_bytes())
    (row,) = parsed(vitlite("predict", RUN, "--stdin-image", "--format", "jsonl", "--out", "one")[0])
    assert (row["file"], row["overlay"]) == ("-", "stdin.png")
    assert rows_of("one/predictions.csv")[0]["file"] == "-"
    stdin(b"no image")
    out, err = vitlite("predict", RUN, "--stdin-image", code=2)
    assert (out, "none of the 1 images could be read; the first: -: is not an image" in err) == ("", True)
    refused("predict", RUN, "images", says="--out: missing; give a folder, or --format jsonl to print a row")
    assert sorted(os.listdir(".")) == ["images", "one"]


def test_names_from_standard_input(images, stdin):
    whole = parsed(vitlite("predict", RUN, "images", "--format", "jsonl")[0])
    names = [*images[:4], "missing.png", *images[4:]]
    stdin("\n".join(names).encode())
    out, err = vitlite("predict", RUN, "-", "--quiet", "--fail-on-defect", code=3)
    rows = parsed(out)
    assert [row["file"] for row in rows] == names
    assert rows[4]["verdict"] is None
    assert "no such file" in rows[4]["error"]
    assert [row["verdict"] for row in rows if row["verdict"]] == [row["verdict"] for row in whole]
    assert err.startswith("vitlite: ")  # not silent under --quiet
    assert "1 not read" in err


def test_a_table_has_its_head_with_its_first_row():
    refused("predict", RUN, "images", "missing.png", "--format", "csv", says="missing.png: no image there")


def test_overlays_of_an_earlier_call_are_named(images):
    _, err = vitlite("predict", RUN, "images", "--out", "images/checked")
    assert "holds predictions" not in err
    out, err = vitlite("predict", RUN, "images", "--format", "jsonl")
    assert len(parsed(out)) == 2 * len(images)
    assert "images/checked: holds predictions of an earlier call, whose overlays are scored too" in err


def test_an_expression_that_finds_nothing_is_named():
    _, err = vitlite("predict", RUN, "images", "--format", "jsonl", "--group-by", "part_(d+)")
    assert "the expression 'part_(d+)' finds nothing in any name, such as images/" in err
    rows = parsed(vitlite("predict", RUN, "images", "--format", "jsonl", "--group-by", "x?")[0])
    assert {row["part_images"] for row in rows} == {1}  # nothing in a name is no part
    assert "finds nothing" not in vitlite("predict", RUN, "images", "--format", "jsonl", "--group-by", r"\d")[1]


def test_a_share_names_its_own_table_until_all_are_scored():
    share = ("predict", RUN, "images", "--out", "out", "--no-overlays", "--shard")
    assert vitlite(*share, "2/2")[0].endswith("; out/shards/2-of-2/predictions.csv\n")
    assert vitlite(*share, "1/2")[0].endswith("; out/predictions.csv\n")


def test_a_sentence_says_if_there_are_more_regions():
    row = {"file": "a.png", "verdict": "defect", "score": 1.0, "percentile": 100.0, "regions": [(0, 0, 1, 1)] * 7}
    assert sentence(row).endswith("; x 0 to 1, y 0 to 1; and 2 more")
    assert sentence(row | {"regions": row["regions"][:5]}).endswith("; x 0 to 1, y 0 to 1")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "no image given; name files, folders or patterns, - for a list on standard input, --watch DIR"),
        (("a.png", "--watch", "images"), "--watch: not together with IMAGE"),
        (("--stdin-image", "--watch", "images"), "--stdin-image: not together with --watch"),
        (("-", "a.png"), "-: not together with other images"),
        (("--watch", "nothing"), "--watch nothing: is no folder"),
        (("images", "--settle", "2"), "--settle 2: needs --watch DIR"),
        (("--watch", "images", "--shard", "1/2"), "--shard 1/2: needs all images by name"),
        (("images", "--shard", "1/2"), "--shard 1/2: needs --out"),
        (("images", "--maps", "--format", "csv"), "--maps: needs --out"),
        (("images", "--out", "o", "--shard", "3/2"), "--shard 3/2: must be I/N with I from 1 to N"),
        (("images", "--out", "o", "--group-by", "("), "--group-by (: not a regular expression"),
        (("images", "--format", "xml"), "--format xml: must be one of jsonl, csv"),
        (("images", "--threads", "0"), "--threads 0: must be a whole number from 1 to 1024"),
    ],
)
def test_wrong_use(options, says):
    refused("predict", RUN, *options, says=says)
    assert not os.path.exists("o")


def test_a_watched_folder(images):
    """Rows come as images do; Ctrl-C ends with whole rows, and --resume goes on."""
    os.mkdir("in")
    command = [sys.executable, "-m", "vitlite", "predict", str(RUN), "--watch", "in", "--out", "out", "--settle", "0.1"]
    # What a shell starts in the background ignores Ctrl-C; here it is as a user starts it.
    plain = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    for number, resume in ((signal.SIGINT, []), (signal.SIGTERM, ["--resume"])):
        process = subprocess.Popen(
            [*command, "--format", "jsonl", *resume], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **plain
        )
        for name in images[:3]:
            copy = f"in/{number}_{os.path.basename(name)}"
            shutil.copy(name, copy)
            assert json.loads(process.stdout.readline())["file"] == copy
        process.send_signal(number)
        out, err = process.communicate()
        assert (process.returncode, out) == (128 + number, "")
        assert f"stopped ({number.name}); the same command with --resume goes on" in err
    rows = rows_of("out/predictions.csv")
    assert [row["file"] for row in rows] == [f"in/{n}_00{i}.png" for n in (2, 15) for i in range(3)]
    assert all(row["verdict"] and os.path.exists(f"out/{row['overlay']}") for row in rows)


def test_an_exported_file_knows_the_images_of_training(images):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(RUN)
    (entry,) = model.metadata_props
    about = json.loads(entry.value)
    one = {"width": [500, 600], "height": [64, 64], "shape": [0.1, 0.2], "colours": ["grey"], "depths": ["8 bits"]}
    about["calibration"][KEY] = one
    entry.value = json.dumps(about)
    onnx.save(model, "known.onnx")
    err = vitlite("predict", "known.onnx", "images", "--out", "out")[1]
    size, colour = [line for line in err.splitlines() if "those of training" in line]
    first = f"(first: {images[0]}), those of training are"
    assert size == f"6 of 6 images are 48 x 48 pixels {first} 500 to 600 x 64 pixels: {ADVICE}"
    assert colour == f"6 of 6 images are in colour {first} grey: {ADVICE}"
    err = vitlite("predict", RUN, "images", "--out", "out", "--overwrite")[1]  # of an older version
    assert "those of training" not in err
    about["calibration"][KEY] = one | {"width": None}
    entry.value = json.dumps(about)
    onnx.save(model, "damaged.onnx")
    refused("predict", "damaged.onnx", "images", "--out", "out2", says="its metadata are damaged")
