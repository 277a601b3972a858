import json
import re

import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Fp8e4m3WeightPerTensorFloat, Int8WeightPerTensorFloat
from brevitas.quant.solver import WeightQuantSolver
from torch import nn
from torch.optim.swa_utils import update_bn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.data import normalize
from qathelpers.deploy import conversion, onnx_export
from qathelpers.nets import quantizers as q
from qathelpers.results import recorded_history, recorded_net
from qathelpers.training import predict

needs_deploy = pytest.mark.skipif(
    bool(onnx_export.missing()), reason=f"needs pip install -e '.[deploy]': {onnx_export.missing()}"
)


def noise(count, channels=3, side=32, seed=2):
    return torch.randint(
        0, 256, (count, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def trained(name, arch="lenet", **options):
    """A net whose BatchNorms have statistics."""
    net = nets.build(name, arch, **options)
    update_bn([normalize(noise(256, *net.spec.image[:2], seed=1))], net)
    return net.eval()


@torch.no_grad()
def logits(net, images):
    return net(normalize(images))


@needs_deploy
@pytest.mark.parametrize("name", ["PytorchNN", "TernaryNN", "Int2NN", "Int4NN", "Int8NN", "TernaryNN-8bit-first-last"])
def test_onnxruntime_computes_the_same_from_qcdq(name, tmp_path):
    net, images = trained(name), noise(256)
    expected = logits(net, images)
    found = onnx_export.run(onnx_export.export(net, tmp_path / "net.onnx"), images)
    assert (found - expected).abs().median() < 1e-5
    # An activation on the border between two levels may be rounded either way. This happens on few of 256 images.
    assert ((found - expected).abs().amax(1) > 1e-3).float().mean() < 0.05
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    assert torch.equal(logits(net, images), expected)


@needs_deploy
@pytest.mark.parametrize("name", ["BinaryNN", "XnorNN"])
def test_binary_nets_are_refused_in_qcdq(name, tmp_path):
    net, images = trained(name), normalize(noise(8))
    with torch.no_grad():
        expected = net(images)
        with pytest.raises(CourseError, match=rf"{name}.*qonnx"):
            onnx_export.export(net, tmp_path / "net.onnx")
        assert not list(tmp_path.iterdir())
        assert torch.equal(net(images), expected)
    assert onnx_export.export(net, tmp_path / "net.onnx", "qonnx").stat().st_size > 10_000


@needs_deploy
@pytest.mark.parametrize("name", ["PytorchNN", "BinaryNN", "TernaryNN", "XnorNN", "Int2NN", "Int4NN", "Int8NN"])
def test_every_net_computes_the_same_from_qonnx(name, tmp_path):
    net, images = trained(name), noise(256)
    expected = logits(net, images)
    found = onnx_export.run(onnx_export.export(net, tmp_path / "net.onnx", "qonnx", images=256), images)
    assert ((found - expected).abs().amax(1) > 1e-3).float().mean() < 0.05


@needs_deploy
def test_a_failed_export_does_not_change_the_net(tmp_path):
    net, images = trained("TernaryNN"), torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
        (tmp_path / "file").write_text("not a folder", encoding="utf-8")
        with pytest.raises(CourseError, match=re.escape(str(tmp_path / "file"))):
            onnx_export.export(net, tmp_path / "file" / "net.onnx")
        assert torch.equal(net(images), expected)


def test_bad_formats_and_missing_packages_are_refused(tmp_path, monkeypatch):
    net = nets.build("TernaryNN", "lenet")
    with pytest.raises(CourseError, match=r"'onnx'.*qcdq, qonnx"):
        onnx_export.export(net, tmp_path / "net.onnx", "onnx")
    monkeypatch.setattr(onnx_export, "missing", lambda: ["onnx"])
    with pytest.raises(CourseError, match=r"onnx.*pip install"):
        onnx_export.export(net, tmp_path / "net.onnx")


@needs_deploy
@pytest.mark.parametrize("name", ["TernaryNN", "Int2NN"])
def test_only_if_a_file_need_not_be_exact_the_runtime_rounds_what_the_net_does_not_quantize(name, tmp_path):
    net, images = trained(name), noise(64)
    gaps = {}
    for exact in (True, False):
        path = onnx_export.export(net, tmp_path / "net.onnx", exact=exact)
        gaps[exact] = (onnx_export.run(path, images, exact=False) - logits(net, images)).abs().mean()
    assert gaps[True] < 1e-3 and gaps[True] < gaps[False] / 10 and gaps[False] < 0.2


@needs_deploy
def test_a_scheme_of_your_own_is_exported(tmp_path):
    net = nets.build(nets.Scheme("Mine", "W8A32", Int8WeightPerTensorFloat, first_last=None), "lenet").eval()
    images = noise(8)
    found = onnx_export.run(onnx_export.export(net, tmp_path / "net.onnx"), images)
    assert torch.allclose(found, logits(net, images), atol=1e-4)


@needs_deploy
@pytest.mark.parametrize("format", onnx_export.FORMATS)
def test_a_net_that_build_did_not_make_is_exported(format, tmp_path):
    quantizer = q.Int4Weight.let(bit_width=6)
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), qnn.QuantLinear(48, 5, bias=True, weight_quant=quantizer))
    images = torch.randn(8, 3, 4, 4)
    with torch.no_grad():
        expected = net.eval()(images)
    found = onnx_export.run(onnx_export.export(net, tmp_path / "net.onnx", format, shape=(3, 4, 4)), images)
    assert torch.allclose(found, expected, atol=1e-5)


class TernaryWithThreshold(WeightQuantSolver):
    """Brevitas exports it to QONNX as 2-bit integers, with other thresholds."""

    quant_type, bit_width, signed, narrow_range = "ternary", 2, True, True
    threshold, scaling_impl_type, scaling_stats_op = 0.7, "stats", "ave"
    scaling_per_output_type, restrict_scaling_type = "tensor", "fp"


@needs_deploy
@pytest.mark.parametrize(
    ("quantizer", "refused"),
    [
        (TernaryWithThreshold, ["qonnx"]),
        (q.Int8Weight.let(bit_width=10), ["qcdq"]),
        (Fp8e4m3WeightPerTensorFloat, ["qcdq", "qonnx"]),
    ],
)
def test_a_file_that_computes_something_else_is_not_written(quantizer, refused, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), qnn.QuantLinear(48, 5, bias=False, weight_quant=quantizer)).eval()
    images = torch.randn(8, 3, 4, 4)
    with torch.no_grad():
        expected = net(images)
    for format in onnx_export.FORMATS:
        path = tmp_path / format / "net.onnx"
        if format in refused:
            with pytest.raises(CourseError, match=format.upper()):
                onnx_export.export(net, path, format, shape=(3, 4, 4))
            assert not list(path.parent.iterdir())
        else:
            onnx_export.export(net, path, format, shape=(3, 4, 4))
            assert torch.allclose(onnx_export.run(path, images), expected, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(net(images), expected)


@needs_deploy
def test_images_of_another_shape_than_the_net_accepts_are_refused(tmp_path):
    with pytest.raises(CourseError, match=r"\(3, 8, 8\)"):
        onnx_export.export(nets.build("TernaryNN", "lenet"), tmp_path / "net.onnx", shape=(3, 8, 8))
    assert not list(tmp_path.iterdir())


@needs_deploy
@pytest.mark.parametrize(("arch", "channels"), [("lenet", 1), ("convnet", 1), ("lenet", 3)])
@pytest.mark.parametrize("format", onnx_export.FORMATS)
def test_nets_for_other_images_and_classes_are_exported(arch, channels, format, tmp_path):
    net, images = trained("TernaryNN", arch, classes=7, image_size=28, channels=channels), noise(8, channels, 28)
    path = onnx_export.export(net, tmp_path / "net.onnx", format, images=8, classes="abcdefg")
    found = onnx_export.run(path, images)
    assert found.shape == (8, 7) and torch.allclose(found, logits(net, images), atol=1e-3)
    assert json.loads(metadata(path)["classes"]) == list("abcdefg")


def metadata(path):
    import onnx

    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


@pytest.fixture(scope="session")
def photos(cifar10):
    """Return the first 1,000 test images of CIFAR-10 and their labels."""
    return cifar10.test_images[:1000], cifar10.test_labels[:1000]


@needs_deploy
@pytest.mark.parametrize("name", ["PytorchNN", "TernaryNN", "Int4NN"])
def test_a_stranger_who_feeds_bytes_to_onnxruntime_gets_the_recorded_accuracy(name, photos, tmp_path):
    import onnxruntime

    (images, labels), net = photos, recorded_net(name)
    path = onnx_export.export(net, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (source,), (sink,) = session.get_inputs(), session.get_outputs()
    assert (source.name, source.type, source.shape[1:]) == ("images", "tensor(uint8)", [3, 32, 32])
    assert (sink.name, sink.type, sink.shape[1:]) == ("logits", "tensor(float)", [10])
    (scores,) = session.run(None, {"images": images.numpy()})
    accuracy = (torch.from_numpy(scores).argmax(1) == labels).float().mean().item()
    own = (logits(net, images).argmax(1) == labels).float().mean().item()
    assert accuracy == pytest.approx(own, abs=0.004)  # of these 1,000 images
    assert accuracy == pytest.approx(recorded_history(name).test_acc, abs=0.03)


@needs_deploy
@pytest.mark.slow
def test_all_test_images_have_the_recorded_accuracy_in_onnxruntime(cifar10, tmp_path):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_export.export(recorded_net("TernaryNN"), tmp_path / "net.onnx"))
    parts = [session.run(None, {"images": part.numpy()})[0] for part in cifar10.test_images.split(500)]
    right = torch.cat([torch.from_numpy(part) for part in parts]).argmax(1) == cifar10.test_labels
    assert right.float().mean().item() == pytest.approx(recorded_history("TernaryNN").test_acc, abs=2e-4)


@needs_deploy
def test_files_say_what_the_net_is(tmp_path):
    net = recorded_net("TernaryNN", "lenet")
    found = metadata(onnx_export.export(net, tmp_path / "net.onnx"))
    assert (found["scheme"], found["bits"], found["arch"]) == ("TernaryNN", "W1.58A32", "lenet")
    assert json.loads(found["classes"]) == list(net.class_names) and "cat" in net.class_names
    assert json.loads(found["config"])["recipe"]["batch_size"] == net.spec.recipe.batch_size
    assert "uint8" in found["input"] and "brevitas" in found["source"] and "ORT_" not in found["precision"]
    rounding = metadata(onnx_export.export(net, tmp_path / "fast.onnx", exact=False))
    assert "ORT_ENABLE_BASIC" in rounding["precision"]
    with pytest.raises(CourseError, match=r"10 logits.*2 names"):
        onnx_export.export(net, tmp_path / "net.onnx", classes=("cat", "dog"))


@needs_deploy
def test_files_take_batches_of_any_size_and_refuse_other_images(tmp_path):
    net = trained("TernaryNN")
    path = onnx_export.export(net, tmp_path / "net.onnx")
    for count in (1, 3, 8):
        images = noise(count)
        assert torch.allclose(onnx_export.run(path, images), logits(net, images), atol=1e-4)
    for wrong in (noise(2, side=28), noise(2, channels=1), noise(2)[0]):
        with pytest.raises(CourseError, match=re.escape(str(tuple(wrong.shape)))):
            onnx_export.run(path, wrong)
    with pytest.raises(CourseError, match="uint8"):
        onnx_export.run(path, normalize(noise(2)))
    fixed = onnx_export.export(net, tmp_path / "eight.onnx", images=8)
    with pytest.raises(CourseError, match=r"\(1, 3, 32, 32\)"):
        onnx_export.run(fixed, noise(1))


@needs_deploy
@pytest.mark.parametrize("format", onnx_export.FORMATS)
def test_without_preprocessing_the_file_takes_normalized_floats(format, tmp_path):
    net, images = trained("TernaryNN"), noise(4)
    path = onnx_export.export(net, tmp_path / "net.onnx", format, images=4, preprocess=False)
    assert torch.allclose(onnx_export.run(path, normalize(images)), logits(net, images), atol=1e-4)
    with pytest.raises(CourseError, match="normalize"):
        onnx_export.run(path, images)


@needs_deploy
def test_a_net_of_your_own_that_fit_has_trained_can_get_the_preprocessing(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5)).eval()
    path = onnx_export.export(net, tmp_path / "net.onnx", shape=(3, 8, 8), preprocess=True)
    images = noise(3, side=8)
    assert torch.allclose(onnx_export.run(path, images), logits(net, images), atol=1e-4)
    deep = nn.Sequential(nn.Conv2d(8, 4, 3), nn.Flatten()).eval()
    with pytest.raises(CourseError, match="preprocess=False"):
        onnx_export.export(deep, tmp_path / "deep.onnx", shape=(8, 6, 6), preprocess=True)


@needs_deploy
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["convnet", "sharpnet"])
@pytest.mark.parametrize("preprocess", [True, False])
def test_the_tools_of_finn_and_hls4ml_can_clean_up_w1a1_nets(arch, preprocess, tmp_path):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.util.cleanup import cleanup_model

    net, images = trained("XnorNN", arch), noise(1)
    path = onnx_export.export(net, tmp_path / "net.onnx", "qonnx", preprocess=preprocess)
    model = cleanup_model(ModelWrapper(str(path)))
    if not preprocess:  # these tools take the net without the steps that normalize bytes
        model = model.transform(ConvertToChannelsLastAndClean(make_input_channels_last=False))
    values = (images if preprocess else normalize(images)).contiguous().numpy()
    (found,) = execute_onnx(model, {model.graph.input[0].name: values}).values()
    assert torch.allclose(torch.from_numpy(found), logits(net, images), atol=1e-3)


@needs_deploy
@pytest.mark.parametrize("arch", ["convnet", "sharpnet"])
def test_no_step_of_an_exported_net_has_the_same_input_twice(arch, tmp_path):
    import onnx

    path = onnx_export.export(trained("XnorNN", arch), tmp_path / "net.onnx", "qonnx")
    for node in onnx.load(str(path)).graph.node:
        assert len(set(node.input)) == len(node.input), node.name  # qonnx's cleanup breaks such a graph


@pytest.mark.parametrize("name", ["PytorchNN", "XnorNN"])
@pytest.mark.parametrize("arch", ["lenet", "convnet"])
def test_portable_nets_compute_the_same_with_core_operators(name, arch):
    net, images = trained(name, arch), normalize(noise(4))
    portable = conversion.portable(net)
    with torch.no_grad():
        assert torch.equal(portable(images), net(images))
    program = torch.export.export(portable, (images,), strict=False)
    assert not any("adaptive_max_pool" in str(node.target) for node in program.graph.nodes)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_net_of_which_most_images_round_otherwise_is_exported(seed, tmp_path):
    net = nets.build("Int8NN", "sharpnet-x2", seed=seed).eval()
    path = onnx_export.export(net, tmp_path / "net.onnx")
    images = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8)
    logits, expected = onnx_export.run(path, images), predict(net, images)
    assert (logits.argmax(1) == expected.argmax(1)).float().mean() > 0.7
    assert torch.allclose(logits, expected, atol=0.05)
