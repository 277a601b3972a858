"""What only a GPU can show: the same results as on a CPU, a step that does not wait, and nets on any device."""

import copy

import pytest
import torch

from qathelpers.common import distributed, hardware
from qathelpers.common.errors import CourseError
from qathelpers.data import normalize
from qathelpers.deploy import integer_reference, onnx_export, openvino_export
from qathelpers.nets import build, weights
from qathelpers.results import recorded_net
from qathelpers.training import fit, make_optimizers, predict
from qathelpers.training.loop import train_step

QUIET = {"log": lambda line: None, "on_batch": lambda share: None}
NAMES = ["PytorchNN", "TernaryNN", "BinaryNN", "XnorNN", "Int2NN", "Int4NN"]


def test_full_precision_is_fp32():
    def compute(images, weights):
        return torch.nn.functional.conv2d(images, weights), images.flatten(1) @ images.flatten(1).T

    images, weights = torch.randn(8, 64, 16, 16), torch.randn(64, 64, 3, 3)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = True
    try:
        with hardware.full_precision():
            results = compute(images.cuda(), weights.cuda())
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
    for result, expected in zip(results, compute(images, weights), strict=True):
        assert (result.cpu() - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_net_predicts_as_on_the_cpu_and_stays_there(name, tiny, monkeypatch):
    net = recorded_net(name)
    logits = predict(net, tiny.test_images)
    assert {parameter.device.type for parameter in net.parameters()} == {"cpu"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expected = predict(net, tiny.test_images)
    assert (logits.argmax(1) == expected.argmax(1)).double().mean() > 0.99
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_no_step_waits_for_the_gpu(name, precision):
    net = build(name, "convnet").cuda().train()
    images, labels = torch.randn(64, 3, 32, 32, device="cuda"), torch.arange(64, device="cuda") % 10
    optimizers = make_optimizers(net, net.spec.recipe)
    train_step(net, images, labels, optimizers, net.spec.recipe, precision)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(net, images, labels, optimizers, net.spec.recipe, precision)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", NAMES)
def test_a_training_is_stopped_and_resumed_with_all_tensors_on_the_gpu(name, tiny, tmp_path):
    def stop(history):
        raise KeyboardInterrupt

    net = build(name, "lenet")
    fit(net, tiny, 2, folder=tmp_path, on_epoch=stop, **QUIET)
    resumed = build(name, "lenet")
    history = fit(resumed, tiny, 2, folder=tmp_path, **QUIET)
    assert len(history) == 2 and history.config["device"].startswith("cuda")
    assert history.config["precision"] == hardware.precision(torch.device("cuda"))
    assert {tensor.device.type for tensor in (*resumed.parameters(), *resumed.buffers())} == {"cuda"}
    assert not weights.warnings(resumed)


@pytest.mark.parametrize("name", ["XnorNN", "Int4NN"])
def test_converters_take_a_net_from_the_gpu(name, tiny, tmp_path):
    net = recorded_net(name)
    images, on_gpu = tiny.test_images[:50], copy.deepcopy(net).cuda()
    here, there = integer_reference.convert(net), integer_reference.convert(on_gpu)
    assert (here.logits(images.numpy()) == there.logits(images.numpy())).all()
    assert len(integer_reference.compare(on_gpu, there, images.cuda()))
    if not onnx_export.missing():
        assert onnx_export.export(on_gpu, tmp_path / "net.onnx", "qonnx").exists()
    if openvino_export.available():
        logits = openvino_export.compiled(on_gpu, len(images))(normalize(images.cuda()))
        assert logits.shape == (50, 10)


def test_an_image_batch_that_is_too_large_is_one_sentence(tiny):
    class Large(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            return torch.empty(len(images), 2**42, device=images.device)

    with pytest.raises(CourseError, match="batch_size"):
        predict(Large().cuda(), tiny.test_images)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    processes = torch.cuda.device_count() + 1
    for variable, value in {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "LOCAL_RANK": 0}.items():
        monkeypatch.setenv(variable, str(value))
    with pytest.raises(CourseError, match="GPU"):
        distributed.init()
