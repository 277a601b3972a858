"""A training that cannot work is refused before its first step, and a net for the data at hand is built."""

from dataclasses import replace

import pytest
import torch
from brevitas import nn as qnn
from torch import nn

from qathelpers import results
from qathelpers.common.errors import CourseError
from qathelpers.data import from_tensors
from qathelpers.nets import ARCHITECTURES, Architecture, Recipe, build
from qathelpers.training import checkpoint, fit, predict

ADAM = Recipe(optimizer="adam", lr=0.001)
QUIET = {"log": lambda line: None, "on_batch": lambda share: None}


def with_classes(dataset, count, side=32):
    images = {f"{split}_images": getattr(dataset, f"{split}_images")[..., :side, :side] for split in ("train", "test")}
    labels = {f"{split}_labels": getattr(dataset, f"{split}_labels") % count for split in ("train", "test")}
    return replace(dataset, classes=tuple(map(str, range(count))), name="own", **images, **labels)


@pytest.mark.parametrize("arch", ["lenet", "convnet-x0.2"])
@pytest.mark.parametrize("count", [65, 9, 2])
def test_a_last_batch_of_one_image_is_refused(tiny, tmp_path, arch, count):
    recipe = Recipe(batch_size=8 if count < 65 else 64)
    dataset, net = tiny.take(count, 20), build("BinaryNN", arch)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    if count % recipe.batch_size == 1:
        with pytest.raises(CourseError, match=f"batch_size={recipe.batch_size}"):
            fit(net, dataset, 1, recipe=recipe, device="cpu", folder=tmp_path, **QUIET)
        assert not list(tmp_path.iterdir())
        assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    else:
        assert len(fit(net, dataset, 1, recipe=recipe, device="cpu", **QUIET)) == 1


def test_a_net_without_batchnorm_can_train_on_single_images(tiny):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    assert len(fit(net, tiny.take(9, 9), 1, recipe=Recipe(optimizer="adam", batch_size=4), device="cpu", **QUIET)) == 1


def test_too_few_outputs_are_refused(tiny):
    with pytest.raises(CourseError, match=r"10 outputs.*12 classes.*classes=12"):
        fit(build("BinaryNN", "lenet"), with_classes(tiny.take(60, 60), 12), 1, device="cpu", **QUIET)


@pytest.mark.parametrize("options", [{}, {"return_quant_tensor": True}])
def test_a_net_that_ends_in_a_quantized_sigmoid_is_refused_but_not_one_that_has_it_inside(tiny, options):
    layers = (nn.Flatten(), nn.Linear(3072, 10), qnn.QuantSigmoid(**options))
    with pytest.raises(CourseError, match="Sigmoid"):
        fit(nn.Sequential(*layers), tiny.take(60, 60), 1, device="cpu", **QUIET)
    inside = nn.Sequential(*layers, qnn.QuantLinear(10, 10, True))
    assert len(fit(inside, tiny.take(60, 60), 1, recipe=ADAM, device="cpu", **QUIET)) == 1


@pytest.mark.parametrize("change", [nn.Module.half, nn.Module.double, lambda net: net.to("meta")])
def test_a_net_whose_parameters_cannot_be_trained_is_refused(tiny, tmp_path, change):
    with pytest.raises(CourseError, match=r"\.weight of"):
        fit(change(build("BinaryNN", "lenet")), tiny.take(60, 60), 1, device="cpu", folder=tmp_path, **QUIET)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_net_that_cannot_be_copied_is_refused_with_a_sentence(tiny):
    net = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(3072, 10)))
    with pytest.raises(CourseError, match="Sequential"):
        fit(net, tiny.take(60, 60), 1, recipe=ADAM, device="cpu", **QUIET)


def test_a_net_made_in_inference_mode_is_refused(tiny):
    with torch.inference_mode():
        net = build("PytorchNN", "lenet")
    with pytest.raises(CourseError, match="inference_mode"):
        fit(net, tiny.take(60, 60), 1, device="cpu", **QUIET)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_that_are_switched_off_do_not_stop_a_training(tiny, mode):
    net, few = build("PytorchNN", "lenet"), tiny.take(60, 60)
    with mode():
        assert len(fit(net, few, 1, device="cpu", **QUIET)) == 1
        assert not torch.is_grad_enabled()


def test_images_of_another_size_are_refused_by_a_net_of_fixed_size(tiny):
    with pytest.raises(CourseError, match=r"28 x 28.*image_size=28"):
        fit(build("BinaryNN", "lenet"), with_classes(tiny.take(60, 60), 10, side=28), 1, device="cpu", **QUIET)


def grey(dataset, side=28):
    images = {f"{s}_images": getattr(dataset, f"{s}_images")[:, :1, :side, :side] for s in ("train", "test")}
    return replace(dataset, name="own", **images)


@pytest.mark.parametrize("arch", ["lenet", "convnet-x0.2", "sharpnet-x0.2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_with_other_channels_than_the_nets_are_refused_before_the_first_step(tiny, tmp_path, arch, channels):
    few = tiny.take(60, 60)
    dataset = grey(few, 32) if channels == 1 else few
    net = build("BinaryNN", arch, channels=4 - channels)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(CourseError) as caught:
        fit(net, dataset, 1, device="cpu", folder=tmp_path, **QUIET)
    assert f"{channels} x 32 x 32" in str(caught.value) and f"channels={channels}" in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_grey_images_are_refused_by_a_net_from_elsewhere_that_cannot_process_them(tiny):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    with pytest.raises(CourseError, match="1 x 32 x 32"):
        fit(net, grey(tiny.take(60, 60), 32), 1, device="cpu", **QUIET)
    assert len(fit(nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)), grey(tiny, 32), 1, device="cpu", **QUIET)) == 1


def gratings(count, seed):
    """Return grey images (count, 1, 28, 28) of noisy stripes, and the direction and width of the stripes as labels."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    phase = 2 * torch.pi * torch.rand(count, 1, generator=random)
    waves = torch.sin(torch.arange(28) * (0.8 + labels[:, None] // 2) + phase)
    images = torch.where(labels[:, None, None] % 2 == 0, waves[:, None, :], waves[:, :, None])
    images = 60 + 40 * images + 20 * torch.randn(count, 28, 28, generator=random)
    return images.clamp(0, 255).byte()[:, None], labels


@pytest.mark.parametrize("arch", ["lenet", "convnet-x0.2", pytest.param("sharpnet-x0.2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["PytorchNN", "BinaryNN", "XnorNN"])
def test_nets_learn_from_grey_images(arch, name):
    dataset = from_tensors(*gratings(600, 0), *gratings(200, 1), name="gratings")
    recipe = replace(build(name, arch).spec.recipe, batch_size=50)
    net, history = results.load_or_train(name, dataset, 3, arch=arch, recipe=recipe)
    assert net.spec.image == (1, 28, 28) and net.spec.classes == 4
    assert history.test_acc > 0.6  # guessing gets 0.25
    again, _ = results.load_or_train(name, dataset, 3, arch=arch, recipe=recipe)
    loaded = checkpoint.load(results.run_folder("gratings", arch) / f"{name}.safetensors")
    expected = predict(net, dataset.test_images)
    assert torch.equal(predict(again, dataset.test_images), expected)
    assert torch.equal(predict(loaded, dataset.test_images), expected) and loaded.spec.channels == 1


def test_only_the_configs_of_grey_images_have_channels(tiny):
    dataset = tiny.take(60, 60)
    configs = [results.load_or_train("BinaryNN", d, 1, arch="lenet")[1].config for d in (dataset, grey(dataset, 32))]
    assert "channels" not in configs[0] and configs[1]["channels"] == 1
    assert configs[0].keys() == configs[1].keys() - {"channels"}
    assert configs[0]["net_sha256"] != configs[1]["net_sha256"]


class Raising(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.layer, self.error = nn.Linear(3072, 10), error

    def forward(self, images):
        if self.error:
            raise self.error
        return self.layer(images.flatten(1)), "something else"


@pytest.mark.parametrize("error", [AssertionError("no QuantTensor"), TypeError("no image"), None])
def test_a_net_from_elsewhere_that_raises_or_returns_a_tuple_is_refused(error, tiny):
    with pytest.raises(CourseError) as caught:
        fit(Raising(error), tiny, 1, device="cpu")
    assert (str(error) if error else "tuple") in str(caught.value)


def test_a_net_that_returns_a_map_is_refused(tiny):
    with pytest.raises(CourseError, match="Conv2d"):
        fit(nn.Conv2d(3, 10, 3), tiny.take(60, 60), 1, device="cpu", **QUIET)


@pytest.mark.parametrize("arch", ["lenet", "convnet-x0.2", "sharpnet-x0.2"])
@pytest.mark.parametrize(("classes", "side"), [(3, 32), (12, 28), (100, 24)])
@pytest.mark.parametrize("name", ["TernaryNN", pytest.param("XnorNN", marks=pytest.mark.slow)])
def test_a_net_is_built_for_the_classes_and_the_size(tiny, arch, classes, side, name):
    dataset = with_classes(tiny.take(60, 60), classes, side)
    net, history = results.load_or_train(name, dataset, 2, arch=arch)
    assert predict(net, dataset.test_images).shape == (60, classes)
    again, _ = results.load_or_train(name, dataset, 2, arch=arch)
    assert torch.equal(predict(again, dataset.test_images), predict(net, dataset.test_images))
    path = results.run_folder("own", arch) / f"{name}.safetensors"
    assert torch.equal(predict(checkpoint.load(path), dataset.test_images), predict(net, dataset.test_images))
    assert history.config["classes"] == classes


def test_an_architecture_of_ones_own_without_classes_is_named(monkeypatch):
    class Plain(nn.Sequential):
        def __init__(self, scheme):
            super().__init__(nn.Flatten(), scheme.linear(3072, 10))

    monkeypatch.setitem(ARCHITECTURES, "plain", Architecture(Plain))
    assert build("BinaryNN", "plain").spec.classes == 10
    with pytest.raises(CourseError, match=r"Plain.*classes"):
        build("BinaryNN", "plain", classes=3)
