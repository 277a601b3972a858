import pytest
import torch

from qathelpers import nets, quantizers, weights
from qathelpers.errors import CourseError

PUBLIC = ["PytorchNN", "TernaryNN", "BinaryNN", "XnorNN", "Int2NN", "Int4NN", "Int8NN"]


def test_the_names_of_the_course_are_there():
    assert set(PUBLIC) <= set(nets.SCHEMES)


@pytest.mark.parametrize("arch", nets.ARCHITECTURES)
@pytest.mark.parametrize("name", nets.SCHEMES)
def test_every_net_learns_something_from_one_step(name, arch):
    net = nets.build(name, arch)
    logits = net(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert logits.shape == (8, 10) and logits.isfinite().all()
    torch.nn.functional.cross_entropy(logits, torch.arange(8)).backward()
    for key, parameter in net.named_parameters():
        if not parameter.requires_grad:
            assert key.startswith("stem."), key
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    first = weights.first_layer(net)
    assert first.weight.grad.abs().sum() > 0


def test_sizes_are_those_announced():
    count = {arch: sum(p.numel() for p in nets.build("PytorchNN", arch).parameters()) for arch in nets.ARCHITECTURES}
    assert 60_000 < count["lenet"] < 64_000
    assert 300_000 <= count["convnet"] <= 502_000
    assert 770_000 <= count["sharpnet"] <= 790_000


def test_schemes_share_architecture_and_latent_weights():
    states = [nets.build(name, seed=3).state_dict() for name in ("PytorchNN", "TernaryNN", "BinaryNN")]
    for key, value in states[0].items():
        for other in states[1:]:
            assert torch.equal(value, other[key]), key


@pytest.mark.parametrize("arch", ["convnet", "sharpnet"])
def test_signs_compare_every_pattern_with_several_thresholds(arch):
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    signs = nets.build("XnorNN", arch).stem(images).gt(0).float().mean((0, 2, 3)).detach()
    of_thresholds = signs.view(len(nets.THRESHOLDS[nets.architecture(arch).patch]), -1)
    assert (of_thresholds > 0).all() and (of_thresholds < 0.5).all()
    assert (of_thresholds.diff(dim=0) < 0).all()
    means = nets.build("Int2NN", arch).stem(images).mean((0, 2, 3))
    assert torch.allclose(means, torch.zeros_like(means), atol=1e-5)


def test_a_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, same, other = (nets.build("BinaryNN", seed=seed).head[3].weight for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(torch.rand(1), expected)


def test_8bit_ends_are_in_the_name_and_in_the_net():
    layers = weights.quantized_layers(nets.build("BinaryNN-8bit-ends", "lenet"))
    levels = [len(weights.describe(name, layer).integers) for name, layer in layers.items()]
    assert levels[0] > 50 and levels[-1] > 50
    assert set(levels[1:-1]) == {2}
    assert len(weights.describe("first", weights.first_layer(nets.build("BinaryNN"))).integers) == 2


@pytest.mark.parametrize(("name", "arch"), [("ternary", "convnet"), ("TernaryNN", "resnet")])
def test_a_wrong_name_lists_the_right_ones(name, arch):
    with pytest.raises(CourseError, match=r"TernaryNN|convnet"):
        nets.build(name, arch)


def test_a_scheme_of_your_own_makes_a_net():
    mine = nets.Scheme("MyNN", "W3A32", quantizers.Int4Weight.let(bit_width=3), ends=quantizers.Int8Weight)
    net = nets.build(mine, "lenet")
    levels = [len(report.integers) for report in map(weights.describe, "abcde", weights.quantized_layers(net).values())]
    assert (net.name, net.bits) == ("MyNN", "W3A32")
    assert max(levels[1:-1]) == 7 and min(levels[0], levels[-1]) > 50
