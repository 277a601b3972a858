"""The quantizer explorer without a browser, through clicks and traits only."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.nets import weights
from qathelpers.widgets import QuantizerExplorer, Setting
from qathelpers.widgets.explorer_plots import QuantizerPlot
from qathelpers.widgets.setting import PRESETS

from .own_nets import MINE, broken, own_net

PNG = b"\x89PNG"
PLOT = QuantizerPlot()


@pytest.fixture(scope="module")
def trained():
    return nets.build("PytorchNN", "lenet")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: torch.nn.Sequential(), "no layer"),
        (lambda: torch.nn.Flatten(), "no layer"),
        (lambda: torch.nn.Conv1d(3, 8, 3), "no layer"),
        (lambda: broken(nets.build("BinaryNN", "lenet")), "NaN"),
        (lambda: {"mine": nets.build("BinaryNN", "lenet")}, "net is a dict"),
        (lambda: "BinaryNN", "net is a str"),
        (lambda: MINE, "net is a Scheme"),
    ],
)
def test_the_explorer_refuses_what_it_cannot_show_in_a_sentence(make, named):
    with pytest.raises((CourseError, ValueError), match=named):
        QuantizerExplorer(make())


def test_the_explorer_offers_the_layers_of_a_readers_own_net(registered):
    explorer = QuantizerExplorer(own_net("alias"))
    assert list(explorer.layer.options) == ["0", "4"]
    explorer.layer.value = "4"
    assert explorer.summary["levels"] == 3


def test_the_explorer_shows_what_each_control_does():
    explorer = QuantizerExplorer(nets.build("PytorchNN", "lenet"))
    assert explorer.summary["levels"] == 3 and bytes(explorer.picture.value).startswith(PNG)
    pictures = {bytes(explorer.picture.value)}
    for control, value in (
        (explorer.bits, 4),
        (explorer.base, "largest"),
        (explorer.factor, 1.5),
        (explorer.threshold, 0.1),
        (explorer.layer, "classifier.1"),
    ):
        control.value = value
        pictures.add(bytes(explorer.picture.value))
    assert len(pictures) == 6
    explorer.per_channel.value = True
    assert "120 scales" in explorer.text.value
    explorer.bits.value = 1
    assert explorer.summary["levels"] == 2 and explorer.summary["zeros"] == 0 and explorer.threshold.disabled


def test_the_explorers_summary_is_what_its_setting_does():
    net = nets.build("PytorchNN", "lenet")
    explorer = QuantizerExplorer(net)
    explorer.bits.value, explorer.base.value, explorer.factor.value = 3, "largest", 0.5
    weight = weights.latent(net.features[0])
    setting = explorer.setting
    assert (setting.bits, setting.base, setting.factor) == (3, "largest", 0.5)
    scale = setting.scale(weight)
    integers = setting.integers(weight / scale)
    error = (integers * scale - weight).square().sum() / weight.square().sum()
    assert explorer.summary["relative squared error"] == pytest.approx(error.item())
    assert explorer.summary["zeros"] == pytest.approx((integers == 0).float().mean().item())
    assert explorer.summary["levels"] == len(integers.unique())
    assert explorer.summary["scale"] == pytest.approx(scale.item())
    assert explorer.summary["gradient passes"] == pytest.approx(((weight / scale).abs() <= 3.5).float().mean().item())


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("bits", "name"), [(2, "TernaryNN"), (1, "BinaryNN")])
def test_the_explorer_computes_as_the_courses_quantizers_do(bits, name, per_channel):
    layer = weights.first_layer(nets.build(name, "lenet"))
    setting = Setting(bits=bits, per_channel=per_channel)
    integers = setting.integers(layer.weight.detach() / setting.scale(layer.weight.detach()))
    same = torch.equal(integers.long(), weights.integers(layer))
    assert same or (per_channel and bits == 2)  # the course has one scale per layer; signs do not depend on it


def test_without_narrow_range_there_is_one_integer_more():
    scaled = torch.linspace(-5, 5, 101)
    assert Setting(bits=3, narrow=False).integers(scaled).unique().tolist() == [-4, -3, -2, -1, 0, 1, 2, 3]
    assert Setting(bits=3).integers(scaled).unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_all_controls_and_says_what_to_notice(trained, name):
    explorer = QuantizerExplorer(trained)
    drawn = []
    explorer.picture.observe(lambda change: drawn.append(change["new"]), names="value")
    explorer.presets[name].click()
    setting, sentence = PRESETS[name]
    assert explorer.setting == setting and sentence in explorer.note.value
    assert len(drawn) <= 1  # one redraw for all controls together
    explorer.bits.value = 3 if setting.bits != 3 else 5
    assert sentence not in explorer.note.value  # it was about another setting


def test_the_tiles_show_the_change_against_the_last_setting(trained):
    explorer = QuantizerExplorer(trained)
    assert "from" not in explorer.tiles.value
    explorer.bits.value = 4
    assert "▲ from 3" in explorer.tiles.value  # levels
    explorer.bits.value = 2
    assert "▼ from" in explorer.tiles.value
    explorer.layer.value = "classifier.1"
    assert "from" not in explorer.tiles.value  # another layer is no change of the setting


@pytest.mark.parametrize("base", ["mean", "largest"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_best_scale_has_the_smallest_error_of_all_factors(trained, base, per_channel):
    explorer = QuantizerExplorer(trained)
    explorer.base.value, explorer.per_channel.value = base, per_channel
    explorer.best.click()
    weight = weights.latent(trained.features[0])  # small enough to be used whole
    errors = {n / 20: replace(explorer.setting, factor=n / 20).error(weight) for n in range(2, 81)}
    assert explorer.summary["relative squared error"] == pytest.approx(min(errors.values()), rel=1e-4)


@given(
    st.integers(1, 8), st.floats(0.1, 4), st.sampled_from(["mean", "largest"]), st.floats(0, 1.5), st.booleans(),
    st.booleans(), st.integers(0, 9),
)  # fmt: skip
def test_the_histogram_has_every_weight_once_in_the_colour_of_its_level(
    bits, factor, base, threshold, narrow, own, seed
):
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(seed))
    setting = Setting(bits, factor, base, threshold, narrow, own)
    scale = setting.scale(weight)
    integers, clipped = setting.integers(weight / scale), ~setting.passes(weight / scale)
    PLOT.show(weight)
    boxes, colours, hatched = PLOT._stacked(setting, integers, clipped)
    heights = [top[1] - bottom[1] for bottom, top, *_ in boxes]
    assert sum(heights) == pytest.approx(100)
    share = sum(height for height, is_hatched in zip(heights, hatched, strict=True) if is_hatched)
    assert share == pytest.approx(100 * clipped.float().mean().item(), abs=1e-4)
    grey = sum(height for height, shade in zip(heights, colours, strict=True) if shade == "#777777")
    assert grey == pytest.approx(100 * (integers == 0).float().mean().item(), abs=1e-4)


def test_a_layer_of_zeros_is_shown():
    net = torch.nn.Sequential(torch.nn.Linear(4, 3, bias=False))
    torch.nn.init.zeros_(net[0].weight)
    explorer = QuantizerExplorer(net)
    for preset in explorer.presets.values():
        preset.click()
        assert bytes(explorer.picture.value).startswith(PNG)
