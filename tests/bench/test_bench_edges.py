"""The benchmark of the map's edge: the same weights, scored with both ends of the filter."""

import re

import pytest

from vitlite.bench import edges
from vitlite.errors import UserError


def test_both_ends_of_the_filter_are_compared(tmp_path, tiny_run, capsys):
    with pytest.raises(SystemExit):
        edges.main([])
    assert edges.main(["--runs", str(tiny_run)]) == 0
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[:2] == ["tiny", "4"]
    assert all(re.fullmatch(r"[01]\.\d+", share) for share in line[2:])
    with pytest.raises(UserError, match="none"):
        edges.main(["--runs", str(tmp_path / "none")])
