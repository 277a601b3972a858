import math

import pytest

from qathelpers.deploy import demo
from tools import demo_times


@pytest.mark.skipif(bool(demo.missing()), reason=f"needs a compiler for WebAssembly: {', '.join(demo.missing())}")
def test_size_and_times_are_measured_where_the_programs_are_installed(monkeypatch):
    monkeypatch.setattr(demo_times, "in_chromium", lambda page, names: {"XnorNN": 0.5})  # it takes seconds to start
    row = demo_times.measure("lenet", ("BinaryNN",)).loc["BinaryNN"]
    assert row["kB"] < 150 and not row["ms in Node.js"] <= 0
    monkeypatch.setattr(demo_times.shutil, "which", lambda name: None)
    assert math.isnan(demo_times.in_node(b""))
