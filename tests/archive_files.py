"""Writers of MNIST's idx files and of CIFAR-10's batches, as their owners and as today's Python write them."""

import gzip
import pickle
import struct

import numpy as np


def idx(array, kind=8):
    """An array of bytes as the content of an idx file."""
    array = np.asarray(array, np.uint8)
    return bytes((0, 0, kind, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def digits(labels, side=7, seed=0):
    """Images (N, side, side) that are all different."""
    return np.random.default_rng(seed).integers(0, 256, (len(labels), side, side), dtype=np.uint8)


def write_mnist(folder, train, test, *, compressed=True, joint="-"):
    """The four files, from the labels of both splits; returns the images of both."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for seed, (split, labels) in enumerate((("train", train), ("t10k", test))):
        images[split] = digits(labels, seed=seed)
        for name, values in ((f"images{joint}idx3", images[split]), (f"labels{joint}idx1", labels)):
            content = idx(values)
            path = folder / f"{split}-{name}-ubyte{'.gz' * compressed}"
            path.write_bytes(gzip.compress(content) if compressed else content)
    return images["train"], images["t10k"]


def rows(count, seed=0):
    """Images as CIFAR-10 holds them, (count, 3072)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def modern_batch(data, labels, protocol):
    """A batch as Python 3 pickles it."""
    return pickle.dumps({b"data": data, b"labels": list(labels), b"batch_label": b"made up"}, protocol)


def python2_batch(data, labels):
    """A batch as Python 2's cPickle wrote the original files: protocol 2, and strings as bytes."""

    def text(value):
        value = value.encode()
        return b"U" + bytes([len(value)]) + value

    def tagged(number):
        return b"q" + bytes([number])

    content = data.tobytes()
    array = b"".join(
        (
            b"cnumpy.core.multiarray\n_reconstruct\n" + tagged(6) + b"cnumpy\nndarray\n" + tagged(7),
            b"K\x00\x85U\x01b\x87R" + tagged(8),
            b"(K\x01M" + struct.pack("<H", len(data)) + b"M" + struct.pack("<H", data.shape[1]) + b"\x86",
            b"cnumpy\ndtype\n" + tagged(9) + text("u1") + b"K\x00K\x01\x87R" + tagged(10),
            b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<i", len(content)) + content + b"tb",
        )
    )
    values = b"".join(b"K" + bytes([label]) for label in labels)
    names = b"".join(text(f"image_{i}.png") + b"r" + struct.pack("<I", 300 + i) for i in range(len(labels)))
    return b"".join(
        (
            b"\x80\x02}"
            + tagged(1)
            + b"("
            + text("batch_label")
            + tagged(2)
            + text("training batch 1 of 5")
            + tagged(3),
            text("labels") + tagged(4) + b"]" + tagged(5) + b"(" + values + b"e" + text("data") + array,
            text("filenames") + b"](" + names + b"eu.",
        )
    )


def write_cifar(folder, per_batch=12, names=None, protocol=None):
    """Five training batches, a test batch and batches.meta; returns (rows, labels) by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for seed, name in enumerate((*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")):
        data, labels = rows(per_batch, seed), [(i + seed) % 10 for i in range(per_batch)]
        made[name] = data, labels
        content = python2_batch(data, labels) if protocol is None else modern_batch(data, labels, protocol)
        (folder / name).write_bytes(content)
    if names:
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names, "num_vis": 3072}, 2))
    return made
