"""One number for one net: `evaluate` and `predict` compute alike, wherever they are called."""

import pytest
import torch
import torch.nn.functional as F

from qathelpers.common.errors import CourseError
from qathelpers.data import Batches, normalize, resize
from qathelpers.nets import build
from qathelpers.training import evaluate, predict

BATCH_SIZE = 100
NETS = ["PytorchNN", "XnorNN", "Int2NN"]


@pytest.fixture(scope="module")
def test_batches(tiny):
    return Batches(tiny.test_images, tiny.test_labels, BATCH_SIZE)


@pytest.fixture(params=NETS)
def net(request, tiny):
    """A net whose BatchNorms have seen images."""
    net = build(request.param, "lenet")
    for _ in range(5):
        net(normalize(tiny.train_images))
    return net


def test_evaluate_and_predict_agree(net, tiny, test_batches):
    loss, accuracy = evaluate(net, test_batches)
    logits = predict(net, tiny.test_images, BATCH_SIZE)
    assert logits.shape == (200, 10) and logits.dtype == torch.float32
    assert accuracy == (logits.argmax(1) == tiny.test_labels).double().mean().item()
    assert loss == pytest.approx(F.cross_entropy(logits, tiny.test_labels).item())


def test_both_compute_in_fp32_in_a_bf16_context_too(net, tiny, test_batches):
    expected, logits = evaluate(net, test_batches), predict(net, tiny.test_images, BATCH_SIZE)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert evaluate(net, test_batches) == expected
        assert torch.equal(predict(net, tiny.test_images, BATCH_SIZE), logits)
        assert not torch.equal(net(normalize(tiny.test_images[:BATCH_SIZE])).float(), logits[:BATCH_SIZE])


def test_both_use_the_running_statistics_and_leave_the_net_in_eval_mode(net, tiny, test_batches):
    for compute in (lambda: evaluate(net, test_batches), lambda: predict(net, tiny.test_images)):
        before = {key: value.clone() for key, value in net.state_dict().items()}
        net.train()
        compute()
        assert not any(module.training for module in net.modules())
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_evaluate_resizes_the_images_if_told_to(tiny, test_batches):
    net = build("PytorchNN", "convnet-x0.2").eval()
    with torch.no_grad():
        logits = net(resize(normalize(tiny.test_images), 20))
    loss, _ = evaluate(net, test_batches, side=20)
    assert loss == pytest.approx(F.cross_entropy(logits, tiny.test_labels).item(), rel=1e-4)
    assert loss != pytest.approx(evaluate(net, test_batches)[0], rel=1e-4)


@pytest.mark.parametrize("arch", ["lenet", "convnet-x0.2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_with_other_channels_than_the_nets_are_refused(tiny, arch, channels):
    net, images = build("PytorchNN", arch, channels=4 - channels), tiny.test_images[:, :channels]
    for compute in (lambda: predict(net, images), lambda: evaluate(net, Batches(images, tiny.test_labels))):
        with pytest.raises(CourseError) as caught:
            compute()
        assert f"channels={channels}" in str(caught.value) and f"channels={4 - channels}" in str(caught.value)
    assert predict(net, tiny.test_images[:, : 4 - channels]).shape == (200, 10)
