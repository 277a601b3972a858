import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.data import normalize
from qathelpers.deploy import compare_layers, onnx_export

needs_deploy = pytest.mark.skipif(
    bool(onnx_export.missing()), reason=f"needs pip install -e '.[deploy]': {onnx_export.missing()}"
)
IMAGES = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def trained(name, arch="lenet"):
    """A net whose BatchNorms have statistics."""
    net = nets.build(name, arch)
    noise = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    update_bn([normalize(noise)], net)
    return net.eval()


def broken(net, layer):
    """A copy of `net` whose BatchNorm called `layer` has wrong statistics."""
    wrong = copy.deepcopy(net)
    with torch.no_grad():
        wrong.get_submodule(layer).running_mean += 0.5
    return wrong


@needs_deploy
@pytest.mark.parametrize("arch", ["lenet", "convnet"])
def test_every_layer_of_a_correct_export_agrees(arch, tmp_path):
    net = trained("TernaryNN", arch)
    path = onnx_export.export(net, tmp_path / "net.onnx", images=len(IMAGES))
    table = compare_layers.compare(net, path, IMAGES)
    assert table["difference"].max() < 1e-5 and not table["difference"].isna().any()
    assert compare_layers.first_different(table) is None
    skips = [name for name in table.index if name.startswith("blocks.") and name.count(".") == 1]
    assert len(skips) == (3 if arch == "convnet" else 0)  # the sum at the end of each block is compared, too


@needs_deploy
@pytest.mark.parametrize("name", ["PytorchNN", "Int8NN"])
def test_layers_that_the_exporter_keeps_are_found(name, tmp_path):
    net = trained(name)
    path = onnx_export.export(net, tmp_path / "net.onnx", images=len(IMAGES))
    table = compare_layers.compare(net, path, IMAGES)
    assert table["difference"].notna().sum() >= 5
    assert table["difference"].median() < 1e-4


@needs_deploy
@pytest.mark.parametrize("layer", ["features.6", "classifier.5"])
def test_the_first_wrong_layer_of_a_file_is_found(layer, tmp_path):
    net = trained("TernaryNN")
    path = onnx_export.export(broken(net, layer), tmp_path / "net.onnx", images=len(IMAGES))
    table = compare_layers.compare(net, path, IMAGES)
    assert compare_layers.first_different(table) == layer
    assert (table.loc[layer:, "difference"] > 1e-4).all()


@needs_deploy
def test_optimizations_that_round_activations_are_found(tmp_path):
    net = trained("TernaryNN")
    path = onnx_export.export(net, tmp_path / "net.onnx", images=len(IMAGES), exact=False)
    table = compare_layers.compare(net, path, IMAGES, exact=False)
    assert compare_layers.first_different(table) == "classifier.1"  # the first of the linear layers


@needs_deploy
def test_files_and_nets_take_normalized_images_too(tmp_path):
    net, images = trained("TernaryNN"), normalize(IMAGES)
    path = onnx_export.export(net, tmp_path / "net.onnx", preprocess=False)
    for found in (compare_layers.compare(net, path, images), compare_layers.compare(net, path, IMAGES)):
        assert found["difference"].max() < 1e-5
    assert compare_layers.compare(net, net, images)["difference"].max() == 0
    with pytest.raises(CourseError, match="uint8"):
        compare_layers.compare(net, onnx_export.export(net, path), images)


@needs_deploy
def test_files_that_do_not_fit_are_refused(tmp_path):
    net = trained("TernaryNN")
    path = onnx_export.export(net, tmp_path / "net.onnx", images=4)
    with pytest.raises(CourseError, match=r"4 images.*8.*images\[:4\]"):
        compare_layers.compare(net, path, IMAGES)
    qonnx = onnx_export.export(net, tmp_path / "q.onnx", "qonnx", images=8)
    with pytest.raises(CourseError, match=r"q\.onnx.*format='qcdq'"):
        compare_layers.compare(net, qonnx, IMAGES)


@pytest.mark.parametrize("name", ["TernaryNN", "XnorNN", "Int4NN"])
def test_two_nets_are_compared_in_the_order_of_computation(name):
    net = trained(name, "convnet")
    table = compare_layers.compare(net, broken(net, "blocks.1.widen.3"), IMAGES)
    assert compare_layers.first_different(table) == "blocks.1.widen.3"
    assert (table.loc[:"blocks.1.widen.2", "difference"] == 0).all()
    layers = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d)]
    assert set(layers) < set(table.index) and table.index[-1] == "head.4"
    assert not any("quant" in name for name in table.index)


def test_comparing_leaves_no_hooks():
    net = trained("TernaryNN")
    compare_layers.compare(net, net, IMAGES)
    assert not any(module._forward_hooks for module in net.modules())


def test_without_a_difference_there_is_no_first_layer():
    net = trained("BinaryNN")
    table = compare_layers.compare(net, copy.deepcopy(net), IMAGES)
    assert (table["difference"] == 0).all() and compare_layers.first_different(table) is None


def test_what_cannot_be_compared_is_refused(monkeypatch, tmp_path):
    net = trained("TernaryNN")
    with pytest.raises(CourseError, match="training mode"):
        compare_layers.compare(nets.build("TernaryNN", "lenet").train(), net, IMAGES)
    with pytest.raises(CourseError, match="same name"):
        compare_layers.compare(net, trained("TernaryNN", "convnet"), IMAGES)
    relu = nn.ReLU()
    twice = nn.Sequential(relu, nn.Flatten(), relu).eval()
    with pytest.raises(CourseError, match=r"0 is used more than once"):
        compare_layers.compare(twice, twice, IMAGES)
    wide = nets.build("TernaryNN", "convnet-x0.5").eval()
    with pytest.raises(CourseError, match=r"widen\.1 returns .*versions of one net"):
        compare_layers.compare(trained("TernaryNN", "convnet"), wide, IMAGES)
    monkeypatch.setattr(onnx_export, "missing", lambda: ["onnx"])
    with pytest.raises(CourseError, match=r"onnx.*pip install"):
        compare_layers.compare(net, tmp_path / "net.onnx", IMAGES)


@needs_deploy
def test_missing_and_damaged_files_are_named_by_every_reader(tmp_path):
    net = trained("TernaryNN")
    path = onnx_export.export(net, tmp_path / "net.onnx", images=len(IMAGES))
    damaged, text, empty = tmp_path / "damaged.onnx", tmp_path / "text.onnx", tmp_path / "empty.onnx"
    damaged.write_bytes(path.read_bytes()[:5000])
    text.write_text("no net", encoding="utf-8")
    empty.touch()
    readers = (
        lambda file: compare_layers.compare(net, file, IMAGES),
        onnx_export.takes_bytes,
        onnx_export.session,
        lambda file: onnx_export.run(file, IMAGES),
    )
    for file in (tmp_path / "missing.onnx", damaged, text, empty, tmp_path):
        for read in readers:
            with pytest.raises(CourseError, match=file.name):
                read(file)
    qonnx = onnx_export.export(net, tmp_path / "q.onnx", "qonnx")
    with pytest.raises(CourseError, match=r"q\.onnx.*format='qcdq'"):
        onnx_export.session(qonnx)
    assert onnx_export.takes_bytes(path) and onnx_export.takes_bytes(qonnx)
    assert torch.equal(onnx_export.session(path)(IMAGES), onnx_export.run(path, IMAGES))


@needs_deploy
def test_images_that_are_no_tensor_or_do_not_fit_are_refused(tmp_path):
    net = trained("TernaryNN")
    path = onnx_export.export(net, tmp_path / "net.onnx")
    qonnx = onnx_export.export(net, tmp_path / "q.onnx", "qonnx")
    for wrong in (IMAGES.numpy(), None, torch.tensor(1), IMAGES[:0], IMAGES[0, 0], IMAGES[..., :20], IMAGES.double()):
        for compare in (lambda i: compare_layers.compare(net, path, i), lambda i: compare_layers.compare(net, net, i)):
            with pytest.raises(CourseError, match=r"images"):
                compare(wrong)
    for read in (lambda i: onnx_export.session(path)(i), lambda i: onnx_export.run(qonnx, i)):
        with pytest.raises(CourseError, match="images"):
            read(IMAGES.numpy())


def test_plots_show_where_the_difference_starts():
    net = trained("TernaryNN")
    tables = {"same": compare_layers.compare(net, net, IMAGES)}
    tables["wrong"] = compare_layers.compare(net, broken(net, "features.6"), IMAGES)
    figure = compare_layers.plot(tables)
    same, wrong = figure.axes[0].lines
    assert max(same.get_ydata()) < min(wrong.get_ydata()[6:])
    assert "wrong: more than 0.0001 from features.6 on" in figure.alt
