"""Damaged run directories and exported files."""

import io
import json
import os
import pickle
import re
import shutil
import zipfile

import torch
from bad_case import MARKER, Table

CHECKPOINTS, CONFIGS, CALIBRATIONS, EXPORTS = Table(), Table(), Table(), Table()


class Bomb:
    """Unpickling it makes the place's marker, as it could do anything else; ``path`` is a file in the place's run."""

    def __init__(self, path):
        self.marker = path.parents[1] / MARKER

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def state_of(run):
    return torch.load(run / "checkpoint.pt", weights_only=True)


def changed(**changes):
    """Damage: some entries of the checkpoint replaced, or removed if None."""

    def damage(path):
        state = {**state_of(path.parent), **changes}
        path.write_bytes(saved({key: value for key, value in state.items() if value is not None}))

    return damage


def bytes_of(function):
    return lambda path: path.write_bytes(function(path.read_bytes()))


def code_beside_weights(path):
    path.write_bytes(saved({**state_of(path.parent), "more": Bomb(path)}))


def code_in_the_old_format(path):
    state = {**state_of(path.parent), "more": Bomb(path)}
    path.write_bytes(saved(state, _use_new_zipfile_serialization=False))


def plain_pickle(protocol):
    return lambda path: path.write_bytes(pickle.dumps(Bomb(path), protocol=protocol))


def a_folder(path):
    path.unlink()
    path.mkdir()


def another_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing to do with torch")


def one_weight(change):
    def damage(path):
        state = state_of(path.parent)
        name = next(name for name in state["model"] if name.endswith("embed.weight"))
        change(state["model"], name)
        path.write_bytes(saved(state))

    return damage


def scoring(name, damage, *options):
    """Scoring an image with a run, one of whose files is damaged."""

    def make(place):
        run = place.run
        damage(run / name)
        return place.predict(place.image, run=run, options=options)

    return make


AGAIN = r".*checkpoint\.pt: .*train again"
REFUSED = r".*checkpoint\.pt: holds objects other than weights.* and was not loaded; train again"
for about, damage, says in (
    ("missing", lambda path: path.unlink(), r".*checkpoint\.pt: not there"),
    ("empty", bytes_of(lambda b: b""), AGAIN),
    ("cut in half", bytes_of(lambda b: b[: len(b) // 2]), AGAIN),
    ("cut by a byte", bytes_of(lambda b: b[:-1]), AGAIN),
    ("text", bytes_of(lambda b: b"this is no checkpoint"), AGAIN),
    ("a folder", a_folder, r".*checkpoint\.pt: cannot be read \(Is a directory\)"),
    ("another zip", another_zip, AGAIN),
    ("a tensor alone", bytes_of(lambda b: saved(torch.ones(3))), r".*checkpoint\.pt: not a checkpoint of vitlite"),
    ("of another program", bytes_of(lambda b: saved({"state_dict": {}})), r".*: not a checkpoint of vitlite"),
    ("of another method", changed(method="anovit"), r".*a checkpoint of method anovit, but config\.toml says sivt"),
    ("of a newer version", changed(format=99, model=None), r".*written by a newer vitlite; upgrade"),
    ("of a version in words", changed(format="two"), r".*not a checkpoint of vitlite"),
    ("without weights", changed(model=None), r".*no usable model.*train again"),
    ("without a step", changed(epoch=None, stage="first"), r".*no usable stage, epoch.*train again"),
    ("weights missing", one_weight(lambda m, name: m.pop(name)), r".*weights do not fit config\.toml"),
    ("weights in words", one_weight(lambda m, name: m.update({name: "x"})), r".*weights do not fit config\.toml"),
    ("weights cut", one_weight(lambda m, name: m.update({name: m[name][1:]})), r".*weights do not fit config\.toml"),
    ("weights without names", one_weight(lambda m, name: m.update({5: m[name]})), AGAIN),
    ("code beside weights", code_beside_weights, REFUSED),
    ("code, old format", code_in_the_old_format, REFUSED),
    ("code, pickle 0", plain_pickle(0), REFUSED),
    ("code, pickle 2", plain_pickle(2), REFUSED),
    ("code, pickle 4", plain_pickle(4), REFUSED),
):
    CHECKPOINTS.add(f"checkpoint {about}", scoring("checkpoint.pt", damage), says)


@CHECKPOINTS.refused(REFUSED)
def code_where_training_goes_on(place):
    run = place.run
    (run / "calibration.json").unlink()
    code_beside_weights(run / "checkpoint.pt")
    return ["train", "--resume", "--out", run]


@CHECKPOINTS.works("run/*")
def log_is_damaged_where_training_goes_on(place):
    """It is only a log: what can be read of it stays."""
    run = place.run
    (run / "calibration.json").unlink()
    (run / "log.jsonl").write_bytes(b'{"stage_index": 0}\n\xff\xfe[1, 2\n')
    return ["train", "--resume", "--out", run, "--device", "cpu"]


# config.toml


def replaced(pattern, by):
    """Damage: the first match of a pattern in config.toml replaced."""

    def damage(path):
        text, count = re.subn(pattern, by, path.read_text(), count=1, flags=re.MULTILINE)
        assert count == 1, pattern
        path.write_text(text)

    return damage


CONFIG = r".*config\.toml: "
for about, damage, says in (
    ("missing", lambda path: path.unlink(), r".*run: no config\.toml here"),
    ("empty", lambda path: path.write_bytes(b""), CONFIG + "cannot be read as a run's configuration"),
    ("not UTF-8", lambda path: path.write_bytes(b"\xff\xfe"), CONFIG + "cannot be read as a run's"),
    ("not TOML", lambda path: path.write_text("{}"), CONFIG + "cannot be read as a run's"),
    ("a folder", a_folder, CONFIG + r"cannot be read \(Is a directory\)"),
    ("nested without end", lambda path: path.write_text("[run]\na = " + "[" * 9999), CONFIG + "cannot be read as"),
    ("tables that are numbers", lambda path: path.write_text("run = 1\nconfig = 2\n"), CONFIG + "cannot be read as"),
    ("no [config]", replaced(r"(?s)^\[config\].*", ""), CONFIG + "cannot be read as"),
    ("no method", replaced(r"^method = .*\n", ""), CONFIG + r"\[run\] is incomplete .*method"),
    ("unknown method", replaced(r"^method = .*", 'method = "magic"'), CONFIG + ".*magic: not a method"),
    ("key of another time", replaced(r"^\[config\]", "[config]\nflux = 3"), CONFIG + "unknown option flux"),
    ("word for a number", replaced(r"^image_size = .*", 'image_size = "64"'), CONFIG + "image_size='64': must be"),
    ("fraction for a number", replaced(r"^heads = .*", "heads = 2.5"), CONFIG + "heads=2.5: must be a whole number"),
    ("number for a word", replaced(r"^score = .*", "score = 1"), CONFIG + "score=1: must be text"),
    ("table for a number", replaced(r"^dim = .*", "dim = {a = 1}"), CONFIG),
    ("negative size", replaced(r"^image_size = .*", "image_size = -64"), CONFIG + ".*image_size=-64: must be at least"),
    ("seed in words", replaced(r"^seed = .*", 'seed = "zero"'), CONFIG + "seed = 'zero': must be a whole number"),
    ("negative seed", replaced(r"^seed = .*", "seed = -1"), CONFIG + r"seed = -1: must be from 0 to 2\^63 - 1"),
    ("another width", replaced(r"^dim = .*", "dim = 32"), r".*weights do not fit config\.toml"),
    ("heads that do not divide", replaced(r"^heads = .*", "heads = 3"), r".*heads"),
    ("unknown backbone", replaced(r"^backbone = .*", 'backbone = "magic"'), r".*magic"),
):
    CONFIGS.add(f"config {about}", scoring("config.toml", damage), says)


# calibration.json


def edited(**changes):
    def damage(path):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


CALIBRATION = r".*calibration\.json: damaged .*vitlite calibrate .* writes it anew"
for about, damage, says in (
    ("missing", lambda path: path.unlink(), r".*calibration\.json: not there; training did not finish"),
    ("empty", lambda path: path.write_bytes(b""), CALIBRATION),
    ("cut", lambda path: path.write_bytes(path.read_bytes()[:40]), CALIBRATION),
    ("a list", lambda path: path.write_text("[]"), CALIBRATION),
    ("nested without end", lambda path: path.write_text("[" * 99999), CALIBRATION),
    ("not a number", edited(image_threshold=float("nan")), CALIBRATION),
    ("a word", edited(pixel_threshold="high"), CALIBRATION),
    ("no scale", edited(display=None), CALIBRATION),
    ("no scores", edited(good_scores=[]), CALIBRATION),
    ("categories in a list", edited(categories=["weave"]), CALIBRATION),
    ("category without a threshold", edited(categories={"weave": {}}), CALIBRATION),
):
    CALIBRATIONS.add(f"calibration {about}", scoring("calibration.json", damage, "--category", "weave"), says)


@CALIBRATIONS.works("run/calibration.json")
def calibrating_anew_mends_it(place):
    run = place.run
    (run / "calibration.json").write_text("[]")
    return ["calibrate", run, "--device", "cpu"]


# ONNX files


def exported(function):
    """Scoring with the exported file after a function has changed its bytes."""

    def make(place):
        path = place.write("model.onnx", function(place.onnx()))
        return place.predict(place.image, run=path)

    return make


def with_metadata(change):
    """A function of the bytes that changes the metadata, a dict."""

    def function(data):
        import onnx

        model = onnx.load_from_string(data)
        (entry,) = (p for p in model.metadata_props if p.key == "vitlite")
        entry.value = change(json.loads(entry.value))
        return model.SerializeToString()

    return function


def infinite(found):
    return json.dumps(found).replace('"image_threshold": ', '"image_threshold": 1e999, "x": ')


def updated(**changes):
    return with_metadata(lambda found: json.dumps({**found, **changes}))


def another_model(data):
    """A valid ONNX file that vitlite has not made."""
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", [x], [y])
    opset = [helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def another_input(data):
    """Our metadata on a model that takes something else."""
    import onnx

    ours, other = onnx.load_from_string(data), onnx.load_from_string(another_model(data))
    other.metadata_props.extend(ours.metadata_props)
    return other.SerializeToString()


DAMAGED = r".*model\.onnx: damaged, or not an ONNX model .*export it again"
METADATA = r".*model\.onnx: its metadata are damaged .*export it again"
for about, function, says in (
    ("empty", lambda b: b"", DAMAGED),
    ("cut", lambda b: b[: len(b) // 2], DAMAGED),
    ("cut by a byte", lambda b: b[:-1], DAMAGED),
    ("text", lambda b: b"this is no model", DAMAGED),
    ("zeros", lambda b: b"\x00" * 100, DAMAGED),
    ("a zip file", lambda b: b"PK\x03\x04 a zip file", DAMAGED),
    ("not ours", another_model, r".*model\.onnx: not exported by vitlite"),
    ("another input", another_input, r".*model\.onnx: its inputs and outputs are not what its metadata say"),
    ("metadata cut", with_metadata(lambda found: json.dumps(found)[:50]), METADATA),
    ("metadata a list", with_metadata(lambda found: "[]"), METADATA),
    ("metadata empty", with_metadata(lambda found: "{}"), METADATA),
    ("metadata nested without end", with_metadata(lambda found: "[" * 100_000), METADATA),
    ("metadata of a version in words", updated(format="x"), METADATA),
    ("metadata with an infinite threshold", with_metadata(infinite), METADATA),
    ("metadata of a newer version", updated(format=99), r".*model\.onnx: exported by a newer vitlite"),
    ("metadata without calibration", updated(calibration=None), METADATA),
    ("metadata with an empty calibration", updated(calibration={}), METADATA),
    ("metadata with another size", updated(image_size=128), r".*its inputs and outputs are not what"),
    ("metadata with a wild size", updated(image_size="big"), METADATA),
    ("metadata with no size", updated(image_size=0), METADATA),
):
    EXPORTS.add(f"onnx {about}", exported(function), says)


@EXPORTS.refused(r".*gone\.onnx: cannot be read \(No such file or directory\)")
def onnx_is_missing(place):
    return place.predict(place.image, run=place.root / "gone.onnx")


@EXPORTS.refused(r".*model\.onnx: cannot be read \(Is a directory\)")
def onnx_is_a_folder(place):
    shutil.move(place.run, place.root / "model.onnx")
    return place.predict(place.image, run=place.root / "model.onnx")


@EXPORTS.refused(r"--device cuda: an ONNX model is scored on the CPU")
def onnx_on_a_gpu(place):
    return place.predict(place.image, run=place.write("model.onnx", place.onnx()), options=["--device", "cuda"])


@EXPORTS.refused(r".*model\.pt2: a pt2 file is for torch\.export\.load")
def pt2_is_not_scored(place):
    return place.predict(place.image, run=place.write("model.pt2", b"x"))


@EXPORTS.works("out/*")
def onnx_under_another_alphabet(place):
    return place.predict(place.image, run=place.write("Modell für 布.onnx", place.onnx()))
