"""The comparison of runs without a browser, through clicks and traits only."""

import re

import pytest

from qathelpers import nets, recorded_histories, results
from qathelpers.common.errors import CourseError
from qathelpers.training.history import History
from qathelpers.widgets import Comparison

from .own_nets import MINE


def test_the_comparison_follows_its_ticks(tiny):
    histories = [results.load_or_train(name, tiny, 1, arch="lenet")[1] for name in ("PytorchNN", "BinaryNN")]
    comparison = Comparison(histories)
    both = bytes(comparison.curves.value)
    assert comparison.table.value.count("<tr") == 3 and comparison.status.value == ""
    comparison.boxes[0].value = False
    assert [history.name for history in comparison.ticked] == ["BinaryNN"] and bytes(comparison.curves.value) != both
    assert "PytorchNN" not in comparison.table.value and "BinaryNN" in comparison.table.value
    comparison.boxes[1].value = False
    assert comparison.status.value and comparison.table.value == "" and comparison.body.layout.display == "none"
    comparison.boxes[0].value = True
    assert comparison.status.value == "" and comparison.body.layout.display is None


def test_a_comparison_of_no_runs_says_so():
    comparison = Comparison([])
    assert comparison.ticked == [] and comparison.status.value and comparison.body.layout.display == "none"


def history_of(**changes):
    config = {"name": "MyNN", "arch": "own", "bits": "W1A32", "seed": 0, "data": "pets", "hardware": "a laptop"}
    history = History({key: value for key, value in (config | changes).items() if value is not ...})
    history.append(epoch=1, train_loss=1, train_acc=0.6, test_loss=1, test_acc=0.5, seconds=30)
    return history


def test_the_comparison_shows_runs_of_a_readers_own_schemes_and_architectures(registered, tiny):
    few = tiny.take(64, 32)
    histories = [results.load_or_train(name, few, 1, arch="own")[1] for name in ("MyNN", MINE, "alias")]
    comparison = Comparison(histories)
    assert [history.name for history in comparison.ticked] == ["MyNN", "MyNN", "Named otherwise"]
    assert "Named otherwise" in comparison.table.value and "MyNN" in comparison.table.value


@pytest.mark.parametrize("changes", [{}, {"kB": 12.5}, {"kB": None}, {"seed": 7}, {"test_acc": 0.25}])
def test_the_comparison_takes_one_run_with_or_without_a_size(changes):
    comparison = Comparison(history_of(**changes))
    assert len(comparison.ticked) == 1 and "MyNN" in comparison.table.value
    assert ("12.5" in comparison.table.value) == ("kB" in changes and changes["kB"] is not None)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: {"mine": history_of()}, "dict"),
        (lambda: 3, "int"),
        (lambda: "MyNN", "str"),
        (lambda: [nets.build("BinaryNN", "lenet")], "LeNet"),
        (lambda: [(nets.build("BinaryNN", "lenet"), history_of())], "tuple"),
        (lambda: [history_of(), history_of(data="shapes")], "pets and shapes"),
        (lambda: [History(history_of().config)], "MyNN has no epoch"),
        (lambda: [history_of(arch=...)], "MyNN.*arch"),
        (lambda: [history_of(bits=...)], "MyNN.*bits"),
        (lambda: [history_of(seed=...)], "MyNN.*seed"),
        (lambda: [history_of(hardware=...)], "MyNN.*hardware"),
        (lambda: [history_of(data=["pets"])], "MyNN.*data"),
    ],
)
def test_the_comparison_refuses_what_it_cannot_show_in_a_sentence(make, named):
    with pytest.raises((CourseError, ValueError), match=named):
        Comparison(make())


@pytest.mark.parametrize("arch", ["own", "no such architecture", None])
def test_an_architecture_without_recorded_runs_is_named(registered, arch):
    with pytest.raises(CourseError, match=f"No runs of {arch}"):
        Comparison(arch=arch)


@pytest.fixture(scope="module")
def recorded():
    return recorded_histories("convnet")


def rows(comparison):
    """The names in the rows of the table, from the top down."""
    return re.findall(r'scope="row">([^<]*)<', comparison.table.value)


def test_three_nets_at_first(recorded):
    comparison = Comparison(recorded)
    assert [h.name for h in comparison.ticked] == [h.name for h in recorded[:3]] and len(recorded) > 3


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("all", ["PytorchNN", "TernaryNN", "BinaryNN", "XnorNN", "Int2NN", "Int4NN", "Int8NN"]),
        ("none", []),
        ("weights only", ["TernaryNN", "BinaryNN"]),
        ("weights and activations", ["XnorNN", "Int2NN", "Int4NN", "Int8NN"]),
    ],
)
def test_a_choice_ticks_its_runs_with_one_redraw(recorded, choice, names):
    comparison = Comparison(recorded)
    drawn = []
    comparison.curves.observe(lambda change: drawn.append(change["new"]), names="value")
    comparison.choices[choice].click()
    assert [history.name for history in comparison.ticked] == names and rows(comparison) == names
    assert len(drawn) == bool(names)


def test_choices_without_runs_are_disabled_and_odd_bits_belong_to_neither():
    comparison = Comparison([history_of(bits="W1A32"), history_of(bits="mixed"), history_of(bits="W4A4.5.1")])
    disabled = {name for name, choice in comparison.choices.items() if choice.disabled}
    assert disabled == {"weights and activations"}
    comparison.choices["weights only"].click()
    assert [h.config["bits"] for h in comparison.ticked] == ["W1A32"]


@pytest.mark.parametrize("column", ["net", "bits", "kB", "train", "test", "epochs", "seed"])
def test_the_table_sorts_by_each_column_in_both_directions(recorded, column):
    comparison = Comparison(recorded)
    comparison.choices["all"].click()
    table = results.table(recorded).reset_index()
    found = []
    for _ in range(2):
        comparison.heads[column].click()
        assert sorted(rows(comparison)) == sorted(table["net"])
        values = [
            table.set_index("net").reset_index().set_index("net", drop=False)[column][name] for name in rows(comparison)
        ]
        rising = values == sorted(values)
        assert rising or values == sorted(values, reverse=True)
        found.append(re.search('aria-sort="?.(asc|desc)ending', comparison.table.value)[1])
    assert set(found) == {"asc", "desc"}
    comparison.boxes[0].value = False
    assert len(rows(comparison)) == len(recorded) - 1


def test_the_training_lines_are_a_switch_and_ticks_do_not_rescale(recorded):
    comparison = Comparison(recorded)
    before, limits = bytes(comparison.curves.value), comparison._plots[0].axes.get_ylim()
    comparison.train.value = True
    assert bytes(comparison.curves.value) != before
    comparison.train.value = False
    comparison.boxes[0].value = False
    assert bytes(comparison.curves.value) != before and comparison._plots[0].axes.get_ylim() == limits
    comparison.boxes[0].value = True
    assert bytes(comparison.curves.value) == before  # what is shown depends on the ticks alone


def test_labels_of_points_do_not_cover_each_other(recorded):
    comparison = Comparison(recorded)
    comparison.choices["all"].click()
    plot = comparison._plots[1]
    boxes = [text.get_window_extent(plot.figure.canvas.get_renderer()) for text in plot.axes.texts]
    assert len(boxes) == len(recorded)
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])
