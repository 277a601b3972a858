import copy

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8ActPerTensorFloat, ShiftedUint8ActPerTensorFloat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import update_bn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.data import normalize
from qathelpers.deploy import integer_reference
from qathelpers.deploy.integer_reference import IntegerConv, Requantize
from qathelpers.nets import quantizers
from qathelpers.results import recorded_net
from qathelpers.training import predict

FEW = 0.15  # share of values; a level that is rounded the other way changes the logits of one image of 20
QUANTIZED = ("XnorNN", "Int2NN", "Int4NN", "Int8NN")


def trained(name, arch, channels=3):
    """Return a net whose BatchNorms have the statistics of noise."""
    net = nets.build(name, arch, channels=channels)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (64, channels, 32, 32), dtype=torch.uint8, generator=generator)
    update_bn([normalize(noise)], net)
    return net.eval()


@given(
    st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 2), st.integers(0, 1), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_a_convolution_of_integers_is_that_of_pytorch(inputs, outputs, size, stride, padding, signs):
    rng = np.random.default_rng(inputs * 10 + outputs)
    levels = [-1, 1] if signs else list(range(-7, 8))
    x, weight = rng.choice(levels, (2, inputs, 6, 5)), rng.choice(levels, (outputs, inputs, size, size))
    found = IntegerConv(weight, stride, padding)(x)
    expected = nn.functional.conv2d(*map(torch.from_numpy, (x, weight)), stride=stride, padding=padding)
    assert found.dtype == np.int32 and np.array_equal(found, expected.numpy())


def test_padding_has_the_level_that_stands_for_zero():
    ones = np.ones((1, 1, 3, 3), np.int32)
    assert IntegerConv(ones, padding=1)(ones)[0, 0, 0, 0] == 4
    assert IntegerConv(ones, padding=1, pad_value=5)(ones)[0, 0, 0, 0] == 4 + 5 * 5


@given(st.integers(-(2**31), 2**31 - 1), st.integers(2, 31))
def test_registers(total, bits):
    half = 2 ** (bits - 1)
    wrapped, stopped = (
        int(function(np.array([total]), bits)[0]) for function in (integer_reference.wrap, integer_reference.saturate)
    )
    assert -half <= wrapped < half and (wrapped - total) % 2**bits == 0
    assert stopped == min(max(total, -half), half - 1)


def test_multiply_and_shift_rounds_to_nearest_and_clips():
    step = Requantize(np.array([3]), np.array([2]), 2, 0, 15)  # 0.75 x, rounded
    x = np.array([-9, 0, 1, 2, 3, 4, 100]).reshape(1, 1, 1, -1)
    assert step(x).ravel().tolist() == [0, 0, 1, 2, 2, 3, 15]


@given(
    st.floats(-3, 3).filter(lambda gain: abs(gain) > 1e-3 or gain == 0),
    st.floats(-50, 50),
    st.integers(-40, 40),
)
def test_a_threshold_is_the_sign_of_the_batchnorm(gain, shift, x):
    value = gain * x + shift
    if abs(value) < 1e-9 and gain:
        return  # float rounding decides
    step = integer_reference._threshold(np.array([gain]), np.array([shift]))
    assert step(np.array(x).reshape(1, 1, 1, 1)).item() == (1 if value >= 0 else -1)


@pytest.mark.parametrize("name", QUANTIZED)
def test_recorded_nets_compute_the_same(name, images):
    net = recorded_net(name)
    integers = integer_reference.convert(net)
    logits = integers.logits(images.numpy())
    assert logits.dtype == np.int32
    gaps = (torch.from_numpy(logits * 2.0**-20) - predict(net, images)).abs().amax(1)
    # A level may be rounded to the other side of a border, which changes the logits of this image.
    limit = 0.05 if name == "Int8NN" else 1e-3
    assert (gaps > limit).sum() <= 2
    assert (integers.predict(images.numpy()) == predict(net, images).argmax(1).numpy()).mean() >= 0.9


@pytest.mark.parametrize("arch", ["convnet", "sharpnet"])
def test_other_architectures_and_grey_images_are_converted(arch):
    net = trained("Int4NN", arch, channels=1)
    grey = torch.randint(0, 256, (20, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = integer_reference.compare(net, integer_reference.convert(net), grey)
    assert found["share"].max() < FEW


@pytest.mark.parametrize("negate", ["blocks.0.refine", "head"])
def test_batchnorms_with_negative_weights_are_converted(negate, images):
    net = recorded_net("XnorNN")
    norm = net.get_submodule(negate)[-1]
    norm.weight.data *= -1
    found = integer_reference.compare(net, integer_reference.convert(net), images)
    assert found["share"].max() < FEW


def test_a_first_batchnorm_with_negative_weights_turns_the_comparison(images):
    net = recorded_net("XnorNN")
    net.stem[1].weight.data[::2] *= -1
    integers = integer_reference.convert(net)
    assert set(integers.steps["blocks.0.widen.0"].direction.tolist()) == {-1, 1}
    assert integer_reference.compare(net, integers, images)["share"].max() < FEW


def test_nothing_but_integers_is_computed(images):
    integers = integer_reference.convert(recorded_net("Int4NN"))
    for name, values in integers.trace(images.numpy()).items():
        assert values.dtype == np.int32, name
    for step in integers.steps.values():
        for value in vars(step).values():
            assert np.asarray(value).dtype.kind == "i"


@pytest.mark.parametrize("name", ["XnorNN", "Int8NN"])
@pytest.mark.parametrize("colour", [0, 255])
def test_no_number_leaves_its_bounds_for_extreme_images(name, colour):
    integers = integer_reference.convert(recorded_net(name))
    rng = np.random.default_rng(0)
    images = np.stack([np.full((3, 32, 32), colour), rng.choice([0, 255], (3, 32, 32))]).astype(np.uint8)
    top = 1 if name == "XnorNN" else 255
    trace = integers.trace(images)
    names = [key for key in integers.steps if key.endswith((".1", "head.3"))]
    assert len(names) == 7
    for key in names:
        low, high = integers.steps[key].bounds(np.array([-1 if top == 1 else 0]), np.array([top]))
        assert (trace[key].min((0, 2, 3)) >= low).all() and (trace[key].max((0, 2, 3)) <= high).all()


@pytest.mark.parametrize(
    ("layer", "break_it"),
    [
        ("blocks.1.widen.1", lambda steps: setattr(steps["blocks.1.widen.1"], "pad_value", 3)),
        ("blocks.1.refine", lambda steps: steps["blocks.1.refine"].offset.fill(0)),
        ("head.3", lambda steps: setattr(steps["head.3"], "weight", -steps["head.3"].weight)),
    ],
)
def test_the_comparison_finds_the_layer_with_the_mistake(layer, break_it, images):
    net = recorded_net("Int4NN")
    broken = copy.deepcopy(integer_reference.convert(net))
    break_it(broken.steps)
    share = integer_reference.compare(net, broken, images)["share"]
    assert next(name for name in share.index if share[name] > 0.2) == layer


def test_narrow_registers_are_used_for_every_sum(images):
    integers, seen = integer_reference.convert(recorded_net("Int4NN")), []

    def limit(sums):
        seen.append(sums.shape)
        return sums * 0

    trace = integers.trace(images.numpy(), limit)
    assert len(seen) == 7 and not trace["head.3"].any()


def test_converting_does_not_change_the_net():
    net = recorded_net("Int4NN").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    integer_reference.convert(net)
    assert net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def replaced(path, module):
    """Return a function that makes a net with `module` in place of the module at `path`."""

    def make():
        net = recorded_net("Int4NN")
        parent, _, child = path.rpartition(".")
        setattr(net.get_submodule(parent), child, module())
        return net.eval()

    return make


def with_attribute(path, **values):
    def make():
        net = recorded_net("Int4NN")
        for name, value in values.items():
            setattr(net.get_submodule(path), name, value)
        return net

    return make


def with_a_hook():
    net = recorded_net("Int4NN")
    net.blocks[1].refine[1].register_forward_hook(lambda module, inputs, output: output * 2)
    return net


def asymmetric():
    """Return an activation whose levels are shifted, because its range was measured on negative numbers."""
    activation = qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloat)
    for _ in range(400):  # Brevitas collects statistics before it sets the zero point
        activation(torch.linspace(-3, 5, 100))
    assert activation.eval().act_quant.zero_point() != 0
    return activation


REFUSED = {
    "PytorchNN": (lambda: nets.build("PytorchNN"), "blocks.0.widen.0"),
    "TernaryNN": (lambda: nets.build("TernaryNN"), "blocks.0.widen.0"),
    "LeNet": (lambda: trained("Int4NN", "lenet"), "LeNet"),
    "a float layer": (replaced("head.3", lambda: nn.Linear(152, 10, bias=False)), "head.3"),
    "a bias": (
        replaced("head.3", lambda: qnn.QuantLinear(152, 10, bias=True, weight_quant=quantizers.Int4Weight)),
        "head.3",
    ),
    "a zero point": (replaced("head.2", asymmetric), "head.2"),
    "input_quant": (
        replaced(
            "head.3",
            lambda: qnn.QuantLinear(
                152, 10, bias=False, weight_quant=quantizers.Int4Weight, input_quant=Int8ActPerTensorFloat
            ),
        ),
        "head.3",
    ),
    "average pooling": (replaced("head.0", lambda: nn.AdaptiveAvgPool2d(1)), "head.0"),
    "pooling that overlaps": (replaced("blocks.0.widen.2", lambda: nn.MaxPool2d(3, 2, 1)), "blocks.0.widen.2"),
    "a BatchNorm of the batch": (
        replaced("blocks.0.refine.2", lambda: nn.BatchNorm2d(48, track_running_stats=False)),
        "blocks.0.refine.2",
    ),
    "another forward": (with_attribute("blocks.1", forward=lambda x: x), "blocks.1"),
}


@pytest.mark.parametrize(("make", "module"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_converted_is_refused(make, module):
    with pytest.raises(CourseError, match=module):
        integer_reference.convert(make())


def test_a_net_with_a_hook_is_refused():
    with pytest.raises(CourseError, match="does not compute what the net computes"):
        integer_reference.convert(with_a_hook())


def test_numbers_that_could_need_more_than_32_bits_are_refused():
    with pytest.raises(CourseError, match="fraction_bits"):
        integer_reference.convert(recorded_net("Int4NN"), fraction_bits=24)


def test_images_that_are_not_bytes_are_refused(images):
    integers = integer_reference.convert(recorded_net("Int4NN"))
    for wrong in (images.float().numpy(), images[0].numpy()):
        with pytest.raises(CourseError, match="uint8"):
            integers.predict(wrong)


@pytest.mark.parametrize("options", [{"fraction_bits": 0}, {"factor_bits": 32}, {"factor_bits": 7.5}])
def test_a_number_of_bits_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        integer_reference.convert(nets.build("Int4NN"), **options)
