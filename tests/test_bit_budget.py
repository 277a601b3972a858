"""The bit budget without a browser: what it computes is what the costs of the built net are."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qathelpers import nets
from qathelpers.analysis import costs
from qathelpers.nets import packing
from qathelpers.nets import quantizers as q
from qathelpers.widgets import BitBudget
from qathelpers.widgets.budget_net import ACTIVATIONS, WEIGHTS, Choice, costs_of


@pytest.fixture(autouse=True)
def own_registries(monkeypatch):
    """Forget the entries that a test registers."""
    for registry in (nets.SCHEMES, nets.ARCHITECTURES):
        for name in list(registry):
            monkeypatch.setitem(registry, name, registry[name])
    before = set(nets.SCHEMES), set(nets.ARCHITECTURES)
    yield
    for registry, names in zip((nets.SCHEMES, nets.ARCHITECTURES), before, strict=True):
        for name in set(registry) - names:
            del registry[name]


WIDTH = st.integers(1, 6).map(lambda n: 8 * n)
BITS, ACTS = st.sampled_from(list(WEIGHTS)), st.sampled_from(list(ACTIVATIONS))
CHOICES = st.builds(Choice, st.tuples(WIDTH, WIDTH, WIDTH), st.tuples(BITS, BITS, BITS, BITS), ACTS)


@settings(max_examples=8)
@given(CHOICES, st.sampled_from([(3, 32, 32), (1, 32, 32), (3, 48, 48)]), st.sampled_from([2, 10]))
def test_the_costs_of_the_parts_are_those_of_the_net(choice, image, classes):
    found = costs_of(choice, image, classes)
    choice.register()
    net = nets.build(choice.name, choice.arch, classes=classes, image_size=image[1], channels=image[0])
    table = costs.layers(net)
    assert found.kilobytes == pytest.approx(packing.kilobytes(net))
    assert (found.macs, found.bops) == (table["MACs"].sum(), table["BOPs"].sum())
    assert found.memory == pytest.approx(costs.feature_map_kilobytes(net))
    own = [packing.kilobytes(part) for part in (net.stem, *net.blocks, net.head)]
    assert list(found.parts.values()) == pytest.approx(own)


def test_each_block_has_its_own_quantizer():
    choice = Choice((8, 16, 24), ("1", "4", "32", "8"), "2")
    choice.register()
    net = nets.build(choice.name, choice.arch)
    assert type(net) is nets.ConvNet  # so that it is trained as fast as the others
    found = [getattr(layer, "weight_quant", None) for layer in (*(b.widen[1] for b in net.blocks), net.head[3])]
    assert [w and q.bits_of(w) for w in found] == [1, 4, None, 8]
    assert [b.refine[1].weight.shape[0] for b in net.blocks] == [8, 16, 24]


def test_block_weights_of_another_number_are_refused():
    with pytest.raises(nets.architectures.CourseError, match=r"block_weights.*2.*3"):
        nets.ConvNet(nets.SCHEMES["BinaryNN"], block_weights=(None, q.BinaryWeight))


@pytest.fixture
def budget(tiny):
    return BitBudget(tiny, 40)


def is_bad(status):
    return "qat-bad" in status.value


def test_every_control_changes_the_costs_at_once(budget):
    seen = [budget.costs]
    for control, value in (
        *((slider, slider.value + 4) for slider in budget.widths),
        *((slider, "4") for slider in budget.bits),
        (budget.activation, "2"),
    ):
        control.value = value
        assert budget.costs not in seen
        seen.append(budget.costs)
        assert f"{budget.costs.kilobytes:.1f} kB" in budget.numbers.value
        assert is_bad(budget.meter) == (budget.costs.kilobytes > 40)
    assert budget.choice == Choice((36, 60, 84), ("4", "4", "4", "4"), "2")


def test_low_bit_activations_need_less_memory_and_low_bit_weights_do_not(budget):
    before = budget.costs
    budget.bits[0].value = "1"
    assert budget.costs.memory == before.memory and budget.costs.kilobytes < before.kilobytes
    budget.activation.value = "4"
    assert budget.costs.memory == before.memory / 8


def test_a_net_beyond_the_budget_is_refused_in_words(budget):
    budget.widths[2].value = 128
    known = set(nets.SCHEMES), set(nets.ARCHITECTURES)
    budget.train.click()
    assert is_bad(budget.status) and "40 kB" in budget.status.value and budget.panel is None
    assert (set(nets.SCHEMES), set(nets.ARCHITECTURES)) == known
    budget.widths[2].value = 8
    assert not budget.status.value  # it was about another net


def test_a_name_that_is_taken_by_something_else_is_refused(budget, monkeypatch):
    monkeypatch.setitem(nets.ARCHITECTURES, budget.choice.arch, nets.ARCHITECTURES["lenet"])
    budget.train.click()
    assert is_bad(budget.status) and "budget 32-56-80" in budget.status.value and budget.panel is None


def test_train_trains_the_chosen_net(tiny):
    budget = BitBudget(tiny.take(64, 32), 10, Choice((8, 8, 8), ("1", "1.58", "4", "8"), "4"))
    budget.train.click()
    panel = budget.panel
    assert panel.wait(120) and len(panel.history) == 3 and panel.history.name == budget.name
    assert panel.history.config["kB"] == pytest.approx(budget.costs.kilobytes, abs=0.06)
    assert panel.net.spec.arch == budget.arch and panel.history.config["arch"] == budget.arch
    again = nets.build(budget.name, budget.arch)  # both names are known from now on
    assert [p.shape for p in again.parameters()] == [p.shape for p in panel.net.parameters()]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"budget": 0}, "budget"),
        ({"budget": -1.5}, "budget"),
        ({"budget": float("nan")}, "budget"),
        ({"budget": float("inf")}, "budget"),
        ({"budget": "40"}, "budget"),
        ({"budget": True}, "budget"),
        ({"choice": (8, 8, 8)}, "choice is a tuple"),
        ({"dataset": None}, "dataset is a NoneType"),
    ],
)
def test_what_is_no_budget_or_choice_is_refused(tiny, options, named):
    with pytest.raises(ValueError, match=named):
        BitBudget(**{"dataset": tiny} | options)


def test_the_sliders_leave_the_random_numbers_of_the_reader_alone(budget):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    budget.widths[0].value, budget.activation.value = 44, "8"
    assert torch.equal(torch.rand(4), expected)


def test_the_names_can_be_used_in_the_next_cell_before_anything_is_trained(budget):
    net = nets.build(budget.scheme, budget.arch)
    assert packing.kilobytes(net) == pytest.approx(budget.costs.kilobytes)
    assert budget.name in nets.SCHEMES


def test_the_still_picture_says_what_is_chosen(budget):
    figure = budget.preview()
    assert budget.choice.name in figure.alt and f"{budget.costs.kilobytes:.1f} kB" in figure.alt
    with Image.open(io.BytesIO(figure.png())) as image:
        assert image.width > 700
