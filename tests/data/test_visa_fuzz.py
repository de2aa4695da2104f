"""Damaged tables of VisA: a data set or the documented error, whatever the bytes are."""

import pytest

pytest.importorskip("hypothesis")

from fuzzing import attempt, damaged, few_examples
from hypothesis import example, given
from hypothesis import strategies as st

from vitlite import data
from vitlite.errors import UserError

VISA = """\
object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0001.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
"""


@few_examples
@given(content=damaged(VISA.encode(), header=80) | st.binary(max_size=30).map(lambda part: VISA.encode() + part))
@example(content=VISA.replace("0001", "1" * 5000).encode())
@example(content=VISA.replace("candle,", "1" * 5000 + ",").encode())
@example(content=VISA.replace("normal", "n" * 200_000).encode())
def test_table_of_visa(fuzz_folder, content):
    root = fuzz_folder / "visa"
    (root / "split_csv").mkdir(parents=True, exist_ok=True)
    (root / "split_csv" / "1cls.csv").write_bytes(content)
    dataset, error = attempt(lambda: data.open_dataset(root, "all", need_train=False), UserError)
    if error is None:
        assert all(root in sample.path.parents for sample in (*dataset.train, *dataset.test))
    else:
        assert "1cls.csv" in str(error)
        assert len(str(error)) < 1000
