"""A training that cannot work is refused before its first step, and a net for the data at hand is built."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from qathelpers import results
from qathelpers.common.errors import CourseError
from qathelpers.nets import ARCHITECTURES, Architecture, Recipe, build
from qathelpers.training import checkpoint, fit, predict

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


def test_images_of_another_size_are_refused_by_a_net_of_fixed_size(tiny):
    with pytest.raises(CourseError, match=r"28 x 28.*image_size=28"):
        fit(build("BinaryNN", "lenet"), with_classes(tiny.take(60, 60), 10, side=28), 1, device="cpu", **QUIET)


def test_a_net_that_returns_a_map_is_refused(tiny):
    with pytest.raises(CourseError, match="Conv2d"):
        fit(nn.Conv2d(3, 10, 3), tiny.take(60, 60), 1, device="cpu", **QUIET)


@pytest.mark.parametrize("arch", ["lenet", "convnet-x0.2", "sharpnet-x0.2"])
@pytest.mark.parametrize(("classes", "side"), [(3, 32), (12, 28), (100, 24)])
@pytest.mark.parametrize("name", ["TernaryNN", "XnorNN"])
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
