from qathelpers.common.timing import alternate, medians


def test_ways_take_turns():
    order = []

    def way(name):
        yield order.append(name)

    times = alternate({"a": lambda: way("a"), "b": lambda: way("b")}, repeats=2)
    assert order == ["a", "b", "a", "b"]
    assert [len(values) for values in times.values()] == [2, 2]
    assert medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}
