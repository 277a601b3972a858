"""Hostile files are refused before they fill the memory; `python -m tests.faults memory` prints how much they take."""

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("measures memory as Linux counts it", allow_module_level=True)
from . import memory

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("title", memory.CASES)
def test_a_hostile_file_is_refused_before_it_fills_the_memory(title, tmp_path):
    case, row = memory.CASES[title], memory.opened(title, tmp_path / "file")
    assert row["MB"] < case.limit, row
    assert row["refused"] == case.refused, row
