"""What a training step costs on a GPU, found without one: launched operations, and waits of the host for the GPU."""

import collections
import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qathelpers.common import hardware
from qathelpers.data import Batches
from qathelpers.nets import build
from qathelpers.nets.fused_quantizers import fused
from qathelpers.training import Run, make_optimizers
from qathelpers.training.loop import train_epoch

LIMITS = {"PytorchNN": 250, "TernaryNN": 400, "BinaryNN": 400, "XnorNN": 450, "Int4NN": 600}
NOT_LAUNCHED = {"detach", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view"}


class Launches(TorchDispatchMode):
    """Count the operations that a GPU computes: not views, and a `_foreach` operation on one shape once."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        namespace, _, name = func._schema.name.partition("::")
        if namespace == "aten" and not func.is_view and name not in NOT_LAUNCHED:
            self.counts[name] += self.kernels(name, args)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def kernels(name, args):
        """PyTorch computes a `_foreach` operation tensor by tensor if the shapes of its two lists differ."""
        if not name.startswith("_foreach"):
            return 1
        lists = [[x.shape for x in a] for a in args if isinstance(a, list | tuple) and isinstance(a[0], torch.Tensor)]
        return 1 if all(shapes == lists[0] for shapes in lists) else len(lists[0])


def training(name, device, dataset, batches):
    """Return the arguments of `train_epoch` for an epoch of two or more batches."""
    net = build(name, "convnet").to(memory_format=torch.channels_last)
    run = Run.plan(net, dataset, 1, device="cpu")
    images, labels = dataset.train_images[: 8 * batches], dataset.train_labels[: 8 * batches]
    optimizers = make_optimizers(net, run.recipe)
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["foreach"] = True  # as on a GPU
    return net, Batches(images, labels, 8, shuffle=True, augment=True, device=device), run, 0, 32, optimizers


@pytest.mark.parametrize("name", LIMITS)
def test_a_step_launches_few_operations(name, tiny):
    counted = []
    with Launches() as launches:
        train_epoch(*training(name, "cpu", tiny, 2), lambda share: counted.append(launches.counts.total()))
    assert 50 < counted[1] - counted[0] <= LIMITS[name], launches.counts.most_common(20)


@pytest.mark.parametrize("name", LIMITS)
def test_no_step_waits_for_a_result(name, tiny, monkeypatch):
    """On the device `meta`, which computes nothing, an operation that needs a value on the host raises an error."""
    monkeypatch.setattr(hardware, "autocast", lambda *_: contextlib.nullcontext())  # `meta` has no autocast
    shares = []

    def stop_after_three(share):
        shares.append(share)
        if len(shares) == 3:
            raise KeyboardInterrupt

    arguments = training(name, "meta", tiny, 4)
    net = arguments[0]
    with fused(net):  # reads the bit widths, once per epoch
        net.to("meta")
        with pytest.raises(KeyboardInterrupt):
            train_epoch(*arguments, stop_after_three)
    assert shares == [0.25, 0.5, 0.75]
