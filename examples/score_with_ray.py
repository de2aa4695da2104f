"""Score a folder, or a Parquet file of images, on several workers with Ray Data; rows come out as Parquet.

Each worker gets the detector once, by pickle, so the run need not be on its machine. A worker that dies is started
again, and its images are scored again. Rows are those of ``vitlite predict``, with the maps in a column if they are
wanted. Needs ``pip install "vitlite[ray]"``.

    python examples/score_with_ray.py RUN INPUT OUT [--workers 2] [--maps]

RUN is a run's folder or an exported .onnx file. INPUT is a folder, also one in a cloud that Ray reads, or a .parquet
file with the columns "file", a name, and "image", the bytes of an encoded image. OUT is a new folder.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import vitlite
from vitlite.data.listing import IMAGE_EXTENSIONS
from vitlite.engine.predict import predict

NUMBERS = ("score", "percentile", "defect_pixels")


class Scorer:
    """Lives in a worker, and has the detector there."""

    def __init__(self, detector, maps):
        self.detector, self.maps = detector, maps

    def __call__(self, batch):
        """Columns ``file`` and ``image`` of a batch to the columns of its rows."""
        with tempfile.TemporaryDirectory() as folder:
            # Below a folder for each image its own path stays as it is: a category is told from its folders.
            paths = [Path(folder, str(i), str(name).lstrip("/")) for i, name in enumerate(batch["file"])]
            for path, data in zip(paths, batch["image"]):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            out = Path(folder, "out")
            rows = predict(self.detector, paths, out, overlays=False, maps=self.maps, batch_size=max(len(paths), 1))
            for path, name, row in zip(paths, batch["file"], rows):
                row["file"] = str(name)
                row["error"] = row.get("error", "").replace(str(path), str(name))
                row["map"] = (out / row["map"]).read_bytes() if "map" in row else b""
        # One type whether or not a batch has images without a verdict: the files of OUT are one table.
        columns = {key: np.array([row.get(key, np.nan) for row in rows], np.float64) for key in NUMBERS}
        columns |= {key: [row.get(key, "") for row in rows] for key in ("file", "verdict", "error")}
        columns["regions"] = [";".join(" ".join(map(str, box)) for box in row.get("regions", ())) for row in rows]
        return columns | ({"map": [row["map"] for row in rows]} if self.maps else {})


def read(source):
    """A data set with the columns ``file`` and ``image``."""
    import ray

    if source.endswith(".parquet"):
        return ray.data.read_parquet(source).select_columns(["file", "image"])
    extensions = [extension[1:] for extension in IMAGE_EXTENSIONS]
    found = ray.data.read_binary_files(source, include_paths=True, file_extensions=extensions)
    return found.rename_columns({"path": "file", "bytes": "image"})


def score(run, source, out, *, workers=2, cpus=1, gpus=0, batch_size=8, maps=False, scorer=Scorer):
    """Write the rows of all images of ``source`` into ``out``; ``cpus`` and ``gpus`` are those of one worker."""
    import ray

    # By Ray's defaults a worker that dies is started again, without end, and gets its images again.
    rows = read(source).map_batches(
        scorer,
        fn_constructor_args=(vitlite.load(run, "cuda" if gpus else "cpu", threads=cpus), maps),
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    rows.write_parquet(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run", "source", "out"):
        parser.add_argument(name)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=1, help="of one worker")
    parser.add_argument("--gpus", type=float, default=0, help="of one worker; may be a share of one")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--maps", action="store_true")
    score(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
