"""Evaluation of a detector: resolution, masks, verdicts, missing and broken files, maps on disk."""

import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vitlite.data import open_dataset
from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import evaluate, evaluate_folder, score_category
from vitlite.errors import UserError
from vitlite.images.maps import read_map, write_map
from vitlite.images.resize import map_at
from vitlite.metrics import StreamingEvaluator, aupro, auroc, average_precision, f1_max
from vitlite.report.build import build_report
from vitlite.results import KEYS, MEAN_OF_KINDS, mean_of, summarize_category, table, write


@pytest.fixture
def detector(tiny_run):
    return Detector(tiny_run, "cpu")


@pytest.fixture
def data(tiny_data, tmp_path):
    return shutil.copytree(tiny_data, tmp_path / "set")


def enlarge(folder, size):
    for path in folder.rglob("*.png"):
        Image.open(path).resize(size, Image.NEAREST).save(path)


def score(detector, data, **options):
    return score_category(detector, open_dataset(data, "weave"), "weave", **options)


def sizes_of_maps(scored):
    return {values.shape for values in scored.maps}


def test_against_the_metrics_by_hand(detector, tiny_data):
    """Maps at the original size against masks as they are; scores are not the maps' maxima."""
    own = evaluate(detector, data=tiny_data)["categories"]["weave"]
    paths = sorted((tiny_data / "weave/test").rglob("*.png"))
    labels, scores, maps, masks = [], [], [], []
    for loaded, pixels, value in detector.score_files(paths):
        kind = loaded.path.parent.name
        labels.append(int(kind != "good"))
        scores.append(value)
        maps.append(map_at(pixels, loaded.height, loaded.width))
        mask = tiny_data / "weave/ground_truth" / kind / f"{loaded.path.stem}_mask.png"
        masks.append((np.asarray(Image.open(mask)) > 127 if labels[-1] else np.zeros_like(maps[-1])).astype(np.uint8))
    assert own["image_auroc"] == pytest.approx(auroc(labels, scores), abs=1e-12)
    assert (own["image_f1_max"], own["image_f1_threshold"]) == pytest.approx(f1_max(labels, scores))
    flat = np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps])
    assert own["pixel_ap"] == pytest.approx(average_precision(*flat), abs=1e-9)
    assert (own["pixel_f1_max"], own["pixel_f1_threshold"]) == pytest.approx(f1_max(*flat))
    assert own["aupro_30"] == pytest.approx(aupro(masks, maps, fpr_limit=0.3), abs=1e-9)


def test_verdicts_are_those_of_the_categories_own_thresholds(detector, data):
    """Or of the run's, for a category without one; counts follow from the verdicts."""
    shutil.copytree(data / "weave", data / "wood")
    scores = sorted(
        image["score"] for image in evaluate(detector, data=data, category="wood")["categories"]["wood"]["images"]
    )
    detector.calibration = {
        **detector.calibration,
        "image_threshold": scores[-3],
        "categories": {"weave": {"image_threshold": scores[1]}},
    }
    found = evaluate(detector, data=data, category="all")["categories"]
    assert [own["threshold"] for own in found.values()] == [scores[1], scores[-3]]
    for own, above in zip(found.values(), (8, 2)):
        verdicts = [image["verdict"] for image in own["images"]]
        assert verdicts == ["defect" if image["score"] > own["threshold"] else "good" for image in own["images"]]
        assert verdicts.count("defect") == own["tp"] + own["fp"] == above
        right = [image["label"] for image in own["images"] if (image["verdict"] == "defect") == bool(image["label"])]
        assert (own["tp"], own["tn"]) == (right.count(1), right.count(0))
        assert (own["tp"] + own["fn"], own["fp"] + own["tn"]) == (own["defective"], own["good"])
    assert found["wood"]["images"][-1]["file"] == "wood/test/spot/001.png"


def test_without_a_calibration_there_are_no_verdicts(detector, tiny_data):
    detector.calibration = None
    results = evaluate(detector, data=tiny_data)
    own = results["categories"]["weave"]
    assert [own[key] for key in ("threshold", "tp", "fp", "tn", "fn")] == [None] * 5
    assert {image["verdict"] for image in own["images"]} == {None}
    assert "calibrated" not in table(results)


def rounded(value):
    """The contents of a JSON file without the last digits."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [*map(rounded, value)] if isinstance(value, list) else round(value, 9) if isinstance(value, float) else value


@pytest.mark.parametrize("masks", ["all", "some", "none"])
def test_streaming_gives_the_same_and_keeps_no_map(detector, data, tmp_path, monkeypatch, masks):
    """As many distinct scores as there are cells, so the figures are exact; with fewer cells they keep their bound."""
    enlarge(data / "weave", (72, 80))
    if masks != "all":
        shutil.rmtree(data / "weave/ground_truth" / ("spot" if masks == "some" else ""))
    plain = evaluate(detector, data=data, maps=tmp_path / "plain")
    streamed = evaluate(detector, data=data, maps=tmp_path / "maps", streaming=True)
    assert rounded(streamed["categories"]) == rounded(plain["categories"])
    assert streamed["about"] == plain["about"] | {"streaming": True}
    assert not plain["about"]["streaming"]
    for path in (tmp_path / "plain").rglob("*.tiff"):
        assert path.read_bytes() == (tmp_path / "maps" / path.relative_to(tmp_path / "plain")).read_bytes()
    scored = score(detector, data, streaming=True)
    assert scored.maps == scored.masks == []
    assert ("\nstreaming: pixel metrics are exact" in table(streamed)) == (masks != "none")
    assert ("\n6 of 6 defective images have no mask" in table(streamed)) == (masks == "none")

    evaluator = partial(StreamingEvaluator, cells=200)
    monkeypatch.setattr("vitlite.results.StreamingEvaluator", lambda **_: evaluator())
    found = (
        evaluate_folder(tmp_path / "maps", data, streaming=True)
        if masks == "all"
        else evaluate(detector, data=data, streaming=True)
    )
    own = found["categories"]["weave"]
    assert (own["error_bound"] is None) == (masks == "none")
    for key in KEYS[3:] if masks != "none" else ():
        assert abs(own[key] - plain["categories"]["weave"][key]) <= own["error_bound"] + 1e-9
        assert 0 < own["error_bound"] < 0.1


def test_a_category_that_was_never_trained_on_is_named(detector, data, caplog):
    shutil.copytree(data / "weave", data / "wood")
    evaluate(detector, data=data, category="weave")
    assert not caplog.messages
    evaluate(detector, data=data, category="all")
    assert caplog.messages == ["wood: never trained on; this run was trained on weave"]


def test_without_masks_no_map_is_kept_at_original_size(detector, data, tmp_path, monkeypatch):
    """Not in a category without masks; with them, the metrics need every map of an image that has one."""
    enlarge(data / "weave/test", (160, 120))
    enlarge(data / "weave/ground_truth", (160, 120))
    masked = score(detector, data)
    assert sizes_of_maps(masked) == {(120, 160)}
    with_masks = summarize_category(masked)
    shutil.rmtree(data / "weave/ground_truth")
    evaluate(detector, data=data, maps=tmp_path / "maps")
    for sample, wanted in zip(masked.samples, masked.maps, strict=True):
        path = tmp_path / "maps/weave/test" / sample.defect / f"{sample.path.stem}.tiff"
        np.testing.assert_array_equal(read_map(path), wanted)

    monkeypatch.setattr("vitlite.images.loading.map_at", None)  # nothing is resized from here on
    scored = score(detector, data)
    assert sizes_of_maps(scored) == {(detector.image_size, detector.image_size)}
    result = summarize_category(scored)
    assert (result["pixel_auroc"], result["pixel_f1_threshold"], result["without_mask"]) == (None, None, 6)
    assert all(result[key] == with_masks[key] for key in KEYS[:3])
    (part,) = build_report(detector, data=data).parts
    assert {card.size for card in part.cards} == {(160, 120)}


def test_an_image_whose_mask_is_missing_keeps_a_small_map(detector, data):
    enlarge(data / "weave/test", (160, 120))
    enlarge(data / "weave/ground_truth", (160, 120))
    shutil.rmtree(data / "weave/ground_truth/spot")
    scored = score(detector, data)
    for values, mask in zip(scored.maps, scored.masks, strict=True):
        assert values.shape == ((detector.image_size,) * 2 if mask is None else mask.shape)
    assert summarize_category(scored)["pixel_auroc"] is not None


def test_the_small_map_is_kept_for_images_smaller_than_the_network(detector, data):
    enlarge(data / "weave/test", (20, 16))
    shutil.rmtree(data / "weave/ground_truth")
    assert sizes_of_maps(score(detector, data)) == {(16, 20)}


def test_empty_mask_still_counts_as_a_defective_image(detector, data):
    for mask in (data / "weave/ground_truth/spot").glob("*.png"):
        Image.new("L", (64, 64)).save(mask)
    own = evaluate(detector, data=data)["categories"]["weave"]
    assert own["defective"] == 6
    assert own["defects"]["spot"]["pixel_auroc"] is None
    assert own["defects"]["spot"]["image_auroc"] is not None


def test_broken_files_are_named(detector, data, caplog):
    broken = data / "weave/test/good/000.png", data / "weave/ground_truth/spot/000_mask.png"
    for path in broken:
        path.write_bytes(b"x")
    own = evaluate(detector, data=data)["categories"]["weave"]
    assert (own["good"], own["defective"], own["without_mask"], len(own["images"])) == (3, 6, 1, 9)
    assert own["skipped"] == [str(path) for path in broken]
    assert [str(path) in line for path, line in zip(broken, caplog.messages, strict=True)] == [True, True]


def test_scores_that_are_not_finite_are_refused(detector, tiny_data):
    detector.method.feature_mean.fill_(np.nan)
    with pytest.raises(UserError, match="not finite"):
        evaluate(detector, data=tiny_data)


def test_names_that_are_no_text_are_written_and_printed(detector, data, tmp_path):
    """Names of folders that are not valid UTF-8 show a replacement character, as everywhere else."""
    (data / "weave/test/spot").rename(data / "weave/test/sp\udcf6t")
    (data / "weave").rename(data / "w\udce4")
    results = evaluate(detector, data=data, category="all")
    write(tmp_path, results)
    assert "\nw\ufffd,sp\ufffdt,2," in (tmp_path / "results.csv").read_text(encoding="utf-8")
    assert "\nw\ufffd/test/sp\ufffdt/000.png,w\ufffd,sp\ufffdt,1," in (tmp_path / "scores.csv").read_text(
        encoding="utf-8"
    )
    assert all(name in table(results) for name in ("w\ufffd ", "sp\ufffdt"))


def test_loco_has_an_image_auroc_of_its_own(detector, data):
    """The mean of the two kinds', and of the categories' for the data set; in other layouts there is no such figure."""
    plain = evaluate(detector, data=data)
    assert MEAN_OF_KINDS not in plain["categories"]["weave"] | plain["mean"]
    assert "LOCO" not in table(plain)
    for part in ("test", "ground_truth"):
        shutil.rmtree(data / "weave" / part / "missing")
        for old, new in (("scratch", "logical_anomalies"), ("spot", "structural_anomalies")):
            (data / "weave" / part / old).rename(data / "weave" / part / new)
    shutil.copytree(data / "weave", data / "wood")
    results = evaluate(detector, data=data, category="all")
    for own in results["categories"].values():
        kinds = [own["defects"][kind]["image_auroc"] for kind in ("logical_anomalies", "structural_anomalies")]
        assert own[MEAN_OF_KINDS] == pytest.approx(sum(kinds) / 2, abs=1e-12)
    assert results["mean"][MEAN_OF_KINDS] == pytest.approx(own[MEAN_OF_KINDS], abs=1e-12)
    text = f"{own[MEAN_OF_KINDS]:.4f}"
    assert table(results).endswith(f"mean of its two kinds: weave {text}, wood {text}, mean {text}")


def test_mean_is_over_categories():
    one, two, three = ({**dict.fromkeys(KEYS, value), "pixel_ap": None} for value in (0.5, 1.0, 0.0))
    mean = mean_of([one, two | {"pixel_ap": 0.5}])
    assert (mean["image_auroc"], mean["pixel_ap"]) == (0.75, 0.5)
    assert mean_of([one, three])["pixel_ap"] is None


class TestMaps:
    """A folder that already holds maps: those of one evaluation alone lie there afterwards."""

    @pytest.fixture
    def at(self, detector, data, tmp_path):
        """A data set with the maps of an evaluation: ``again`` evaluates, ``files`` are the maps by name."""
        folder = tmp_path / "maps"

        def files():
            return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.tiff")}

        def again(**options):
            return evaluate(detector, data=data, maps=folder, **options)

        again()
        return SimpleNamespace(folder=folder, again=again, files=files, before=files(), test=data / "weave/test")

    def test_maps_are_replaced(self, at):
        assert len(at.before) == 10
        for path in at.folder.rglob("*.tiff"):
            write_map(path, np.zeros((3, 3)))
        at.again()
        assert at.files() == at.before

    @pytest.mark.parametrize("streaming", [False, True])
    def test_maps_that_others_wrote_are_refused_and_kept(self, at, streaming):
        path = at.folder / "weave/test/spot/001.tiff"
        Image.fromarray(np.zeros((3, 3), np.float32)).save(path)
        before = at.files()
        with pytest.raises(UserError, match=r"holds 1 map that vitlite did not write, .* \(weave/test/spot/001.tiff\)"):
            at.again(streaming=streaming)
        assert at.files() == before

    def test_an_image_that_is_broken_now_keeps_no_map(self, at):
        (at.test / "spot/000.png").write_bytes(b"x")
        at.again()
        assert at.before.keys() - at.files() == {"weave/test/spot/000.tiff"}

    def test_maps_of_images_that_are_missing_are_refused_and_kept(self, at):
        (at.test / "spot/000.png").unlink()
        with pytest.raises(UserError, match=r"holds 1 map of other images \(weave/test/spot/000.tiff\)"):
            at.again()
        assert at.files() == at.before

    def test_an_evaluation_that_fails_keeps_the_earlier_maps(self, at):
        for path in at.test.rglob("*.png"):
            path.write_bytes(b"x")
        with pytest.raises(UserError):
            at.again()
        assert at.files() == at.before

    def test_maps_of_other_categories_stay(self, at):
        other = at.folder / "wood/test/good/000.tiff"
        other.parent.mkdir(parents=True)
        other.write_bytes(b"of another evaluation")
        at.again()
        assert other.read_bytes() == b"of another evaluation"

    def test_images_that_would_share_a_map(self, at):
        Image.open(at.test / "good/000.png").save(at.test / "good/000.bmp")
        with pytest.raises(UserError, match=r"000\.bmp"):
            at.again()
        assert at.files() == at.before


def test_copies_are_named(tmp_path, tiny_data, detector, caplog):
    """A copy counts twice, and one of training says nothing about new images. A file of equal size is no copy."""
    root = shutil.copytree(tiny_data / "weave", tmp_path / "weave")
    first, second = sorted((root / "train" / "good").iterdir())[:2]
    shutil.copy(first, root / "test" / "good" / "again.png")
    shutil.copy(root / "test" / "good" / "001.png", root / "test" / "spot" / "002.png")
    content = bytearray(second.read_bytes())
    content[-5] ^= 1
    (root / "test" / "good" / "other.png").write_bytes(content)
    evaluate(detector, data=root)
    twice, learned = (line.removeprefix(f"{root}: 1 test image is a copy of ") for line in caplog.messages)
    assert twice == "another one: test/spot/002.png = test/good/001.png; each counts; remove them"
    assert learned == ("good images that this run learned from: test/good/again.png; the results are too good")
