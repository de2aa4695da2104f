"""Options that make no sense, alone or together."""

import torch
from bad_case import Table, noise
from tiny_settings import TINY_OPTIONS, options_of

OPTIONS = Table()


def add(name, args, says):
    """A case whose arguments are these; functions among them are called with the place."""
    OPTIONS.add(name, lambda place: [arg(place) if callable(arg) else arg for arg in args], says)


def run(place):
    return place.run


def data(place):
    return place.data


def out(place):
    return place.root / "out"


def new(place):
    return place.root / "new"


def good(place):
    return place.data / "weave/train/good"


def photos(place):
    return place.save("photos/0.png", noise()).parent


def other_set(place):
    place.save("other/train/good/0.png", noise())
    return place.save("other/test/bent/0.png", noise()).parents[2]


GONE = {"backbone": "efficientnet_lite0", "weights": "/nowhere/weights.pt"}
L2CAE = ["train", "--method", "l2cae"]
SIVT = ["train", "--method", "sivt", "--device", "cpu"]
TRAIN = [*SIVT, "--data", data, "--out", new, *TINY_OPTIONS]
RESUME = ["train", "--resume", "--out", run, "--device", "cpu"]
INIT = ["train", "--device", "cpu", "--out", new, "--init-from"]
ABLATE = ["ablate", "--method", "sivt", "--table", "induction", "--data", data, "--out", out]
for setting, says in (
    ("epochs", "--set epochs: write it as KEY=VALUE"),
    ("=3", "--set =3: write it as KEY=VALUE"),
    ("flux=3", "--set flux: no such setting"),
    ("epochs=many", "--set epochs=many: must be a whole number"),
    ("epochs=0", "--set epochs=0: must be at least 1"),
    ("epochs=1.5", r"--set epochs=1\.5: must be a whole number"),
    ("lr=nan", "--set lr=nan: must be above 0"),
    ("lr=-1", "--set lr=-1: must be above 0"),
    ("lr=inf", "--set lr=inf: must be above 0 and finite"),
    ("sigma=nan", "--set sigma=nan: must be finite"),
    ("sigma=inf", "--set sigma=inf: must be finite"),
    ("sigma=-1", "--set sigma=-1: must be at least 0"),
    ("weight_decay=nan", "--set weight_decay=nan: must be at least 0"),
    ("weight_decay=inf", "--set weight_decay=inf: must be finite"),
    ("clip_norm=nan", "--set clip_norm=nan"),
    ("holdout=1", "--set holdout=1: must be at least 0 and below 1"),
    ("train_images=-1", "--set train_images=-1: must be at least 0"),
    ("beta2=1", "--set beta2=1: must be at least 0 and below 1"),
    ("precision=int3", "--set precision=int3: not one of"),
    ("heads=7", "--set .*heads"),
    ("patch=5", "--set .*patch"),
    ("image_size=7", "--set image_size=7: must be at least 8"),
    ("backbone=magic", ".*magic"),
    ("induction=perhaps", "--set induction=perhaps: must be true or false"),
    ("compare_maps=perhaps", "--set compare_maps=perhaps: must be true, false or auto"),
    ("strides=a,b", "--set strides=a,b: must be numbers with commas"),
):
    add(f"--set {setting}", [*TRAIN, "--set", setting], says)

for name, args, says in (
    ("no command", ["frobnicate"], "frobnicate: no such command; there are train, eval, predict"),
    ("command misspelt", ["evla", "x"], "evla: no such command; nearest: eval"),
    ("unknown option", ["train", "--frobnicate"], "--frobnicate: no such option; for example: vitlite train"),
    ("data twice", ["train", data, "--data", data], "--data: not together with .*, which names the data too"),
    ("settings of no preset", ["train", "--help-settings", "--preset", "slow"], "--preset slow: sivt has no such"),
    ("out is the data", [*SIVT, "--data", data, "--out", data], "--out .*: holds the data set"),
    ("out is above the data", [*SIVT, "--data", good, "--out", data, *TINY_OPTIONS], "--out .*: holds the data set"),
    (
        "out holds images",
        [*SIVT, "--data", data, "--out", photos, *TINY_OPTIONS],
        "--out .*photos: holds images; choose",
    ),
    (
        "out holds another data set",
        [*SIVT, "--data", good, "--out", other_set, *TINY_OPTIONS],
        "--out .*other: holds a data set; choose another folder",
    ),
    (
        "update among images",
        ["update", run, "--good", lambda place: place.image, "--out", photos, "--device", "cpu"],
        "--out .*photos: holds images; choose another folder",
    ),
    ("method unknown", ["train", "--method", "magic"], "--method magic: not a method"),
    (
        "preset unknown",
        ["train", "--method", "sivt", "--preset", "slow"],
        "--preset slow: sivt has no such preset; choose fr",
    ),
    (
        "seed negative",
        ["train", "--method", "sivt", "--seed", "-1"],
        "--seed -1: must be a whole number from 0",
    ),
    (
        "seed in words",
        ["train", "--method", "sivt", "--seed", "x"],
        r"--seed x: must be a whole number from 0 to 2\^",
    ),
    ("option misspelt", ["train", "--metod", "sivt"], "--metod: no such option; nearest: --method"),
    ("option without a value", ["train", "--method"], "--method: needs a value; see vitlite --help"),
    ("weights are missing", [*TRAIN, *options_of(GONE)], r".*/nowhere/weights\.pt"),
    ("weights of a method without", [*L2CAE, "--weights", "x.pt"], "--weights: l2cae has no weights to load; leave it"),
    ("weights twice", [*INIT, run, "--data", data, "--weights", "x.pt"], "--weights: not together with --init-from"),
    ("device unknown", [*TRAIN, "--device", "abacus"], "--device abacus: must be auto, cpu, cuda"),
    ("device of another kind", [*TRAIN, "--device", "meta"], "--device meta: must be auto, cpu, cuda"),
    ("quiet and verbose", [*TRAIN, "-q", "-v"], "--quiet: not together with --verbose"),
    ("resume what", ["train", "--resume"], "--resume: say which run"),
    ("resume nothing", ["train", "--resume", "--out", new], ".*new: no such folder; give the folder"),
    (
        "resume with settings",
        [*RESUME, "--set", "lr=1"],
        "--set lr: not together with --resume, with which",
    ),
    ("resume with a method", [*RESUME, "--method", "sivt", "--seed", "1"], "--method, --seed: not together with --res"),
    ("resume with weights", [*RESUME, "--weights", "none"], "--weights: not together with --resume"),
    (
        "resume for less",
        [*RESUME, "--set", "epochs=1"],
        "--set epochs=1: makes 1 epoch; the run has had 2",
    ),
    ("resume twice", [*RESUME, "--set", "epochs=3", "--set", "steps=9"], "--set steps: not together with --set epochs"),
    (
        "resume on other images",
        [*RESUME, "--data", lambda p: p.save("set2/weave/a.png", noise()).parent],
        ".*set2/weave",
    ),
    ("init of no run", [*INIT, new, "--data", data], ".*new: no such folder; give the folder"),
    ("init without data", [*INIT, run], "--data: give the good images to train on, together with --init-from"),
    (
        "init of another method",
        [*INIT, run, "--data", data, "--method", "memca"],
        "--method memca: .* a run of sivt",
    ),
    (
        "init of another network",
        [*INIT, run, "--data", data, "--set", "heads=1"],
        "--set heads=1: --init-from",
    ),
    ("eval what", ["eval"], "RUN: missing; for example: vitlite eval runs/bottle"),
    ("eval nothing", ["eval", new], ".*new: no such folder; give the folder"),
    ("eval no name", ["eval", ""], "an argument: is empty; give a value"),
    ("eval of a file", ["eval", lambda place: place.image], r".*image\.png: is a file; give the folder"),
    ("eval category", ["eval", run, "--data", data, "--category", "nut"], "--category 'nut': not in"),
    ("predict of no run", ["predict", new, data, "--out", out], ".*new: no such folder; give the folder"),
    ("image is missing", ["predict", run, lambda p: p.root / "gone.png", "--out", out], r".*gone\.png: no image there"),
    ("pattern without a match", ["predict", run, lambda p: p.root / "no*.png", "--out", out], r".*\*\.png: no image"),
    (
        "out is below a file",
        ["predict", run, data, "--out", lambda p: p.image / "out"],
        r"--out .*/out: .*image\.png is a f",
    ),
    ("out is a file", [*SIVT, "--data", data, "--out", lambda p: p.image], r"--out .*image\.png: .* is a file, not a"),
    (
        "out in a file",
        [*SIVT, "--data", data, "--out", lambda p: p.image / "new"],
        r"--out .*new: .*image\.png is a fi",
    ),
    ("eval into a file", ["eval", run, "--out", lambda p: p.image], r"--out .*image\.png: .* is a file, not a"),
    ("predict into a file", ["predict", run, data, "--out", lambda p: p.image], r"--out .*image\.png: .* is a file"),
    ("out holds a run", [*SIVT, "--data", data, "--out", run], ".*holds a run; use --resume .* another --out"),
    ("data is missing", [*SIVT, "--data", lambda p: p.root / "nowhere", "--out", new], ".*nowhere: no such folder"),
    ("data is a file", [*SIVT, "--data", lambda p: p.image, "--out", new], r".*image\.png: is a file; give the folder"),
    ("category is misspelt", [*TRAIN, "--category", "weawe"], "--category 'weawe': not in .*nearest: weave"),
    ("synth into a full folder", ["data", "synth", "--out", data], ".*set: the folder is not empty"),
    ("maps are missing", ["eval-maps", new, "--data", data], ".*new: no such folder"),
    ("predict nothing", ["predict", run, "--out", out], "no image given; name files, folders or patterns"),
    ("predict where", ["predict", run, data], "--out: missing; give a folder, or --format jsonl"),
    (
        "predict category",
        ["predict", run, data, "--out", out, "--category", "nut"],
        "--category nut: unknown; the run",
    ),
    (
        "predict by two thresholds",
        ["predict", run, data, "--out", out, "--sensitivity", "low", "--threshold", "9"],
        "--sensitivity low: not together with --threshold 9; give one of them",
    ),
    (
        "predict by two thresholds of pixels",
        ["predict", run, lambda p: p.image, "--sensitivity", "high", "--pixel-threshold", "9"],
        "--sensitivity high: not together with --pixel-threshold 9",
    ),
    ("calibrate rate", ["calibrate", run, "--target-fpr", "2"], "--target-fpr 2"),
    ("calibrate rate lost in rounding", ["calibrate", run, "--target-fpr", "1e-320"], ".*must be at least 1e-09"),
    ("calibrate rate in words", ["calibrate", run, "--target-fpr", "few"], "--target-fpr few: must be a number"),
    ("calibrate on trained images", ["calibrate", run, "--good", good], "--good: the run was trained on"),
    ("calibrate on nothing", ["calibrate", run, "--good", new], ".*new: no image there"),
    ("export format", ["export", run, "--format", "exe"], "--format exe: must be one of onnx, pt2"),
    ("export name", ["export", run, "--out", lambda place: place.root / "model.txt"], r"--out .*model\.txt: .*\.onnx"),
    (
        "export where",
        ["export", run, "--out", lambda place: place.root / "no/m.onnx"],
        "--out .*: there is no folder",
    ),
    ("export check", ["export", run, "--format", "pt2", "--check", new], ".*new: no image there"),
    ("report where", ["report", run, "--out", lambda place: place.root / "no/r.html"], "--out .*r.html: there is no"),
    ("report over a folder", ["report", run, "--out", data], "--out .*set: is a folder"),
    (
        "report over an image",
        ["report", run, "--out", lambda p: p.image],
        r"--out .*image\.png: is a file already, and",
    ),
    ("report what", ["report"], "RUN: missing; for example: vitlite report"),
    ("report data", ["report", run, "--data", new], ".*new: no such folder"),
    ("report category", ["report", run, "--category", "nut"], "--category 'nut': not in"),
    ("ablate which table", ["ablate", "--method", "sivt"], "--table: say which; choose from .*induction"),
    (
        "ablate table unknown",
        ["ablate", "--method", "sivt", "--table", "x"],
        "--table x: .* no such table; .*induction",
    ),
    ("ablate method unknown", ["ablate", "--method", "magic"], "--method magic"),
    ("ablate row unknown", [*ABLATE, "--rows", "7"], "--rows 7: no such row"),
    ("ablate preset unknown", [*ABLATE, "--preset", "huge"], "--preset huge"),
    ("ablate setting", [*ABLATE, "--set", "subset=3"], ".*subset"),
    ("data what", ["data", "frobnicate"], "frobnicate: no such command; there are"),
    ("data misspelt", ["data", "chek", data], "chek: no such command; nearest: check"),
    ("check what", ["data", "check"], "DIR: missing; for example: vitlite data check"),
    ("check category", ["data", "check", data, "--category", "nut"], "--category 'nut': not in"),
    ("synth where", ["data", "synth"], "--out: missing; for example: vitlite data synth"),
    ("synth size in words", ["data", "synth", "--out", new, "--size", "x"], "--size x: must be a whole number"),
    ("synth size", ["data", "synth", "--out", new, "--size", "5"], "--size 5: choose a whole number from 32"),
    (
        "synth nothing",
        ["data", "synth", "--out", new, "--train", "0", "--good", "0", "--defects", "0"],
        ".*are 0: no",
    ),
    ("synth texture", ["data", "synth", "--out", new, "--categories", "silk"], "--categories 'silk': choose from"),
    ("bench unknown", ["bench", "frobnicate"], "bench frobnicate: no such benchmark"),
    ("doctor argument", ["doctor", "now"], "now: one argument too many; for example: vitlite doctor"),
    ("maps without data", ["eval-maps", new], "--data: missing; for example: vitlite eval-maps"),
):
    add(name, args, says)

if not torch.cuda.is_available():
    add("device that is not there", [*TRAIN, "--device", "cuda"], "--device cuda: this torch sees no CUDA device")
