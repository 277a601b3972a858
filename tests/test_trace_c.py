import pytest

from qathelpers.deploy import c
from qathelpers.results import recorded_net
from tools import trace_c

pytestmark = pytest.mark.skipif(c.compiler() is None, reason="needs a C compiler: cc, gcc or clang")


def test_sums_in_c_and_in_pytorch_are_the_same_numbers_in_the_same_places(tiny):
    net, images = recorded_net("XnorNN", "convnet"), tiny.test_images[:2]
    ours, theirs = trace_c.sums_in_c(net, images), trace_c.sums_in_pytorch(net, images)
    assert len(ours) == len(theirs) == len(trace_c.activations(net))
    for in_c, in_torch in zip(ours, theirs, strict=True):
        assert in_c.shape == in_torch.shape
        assert (abs(in_c - in_torch) < 1e-3).mean() > 0.9  # where a sum rounds to another sign, others follow


def test_the_first_sum_with_another_sign_is_named(monkeypatch, tiny):
    net, images = recorded_net("XnorNN", "convnet"), tiny.test_images[:1]
    theirs = trace_c.sums_in_pytorch(net, images)
    ours = [numbers.copy() for numbers in theirs]
    ours[1][0, 5, 7] *= -1
    monkeypatch.setattr(trace_c, "sums_in_c", lambda *_: ours)
    row = trace_c.explain(net, images).iloc[0]
    assert (row["layer"], row["signs"], row["pixel"], row["channel"]) == ("blocks.0.refine", 1, 5, 7)
    assert row["C"] == -row["PyTorch"] != 0
