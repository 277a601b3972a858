"""Refuse a training that cannot work, before its first step."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..common.errors import CourseError
from ..data.batches import normalize
from ..data.dataset import Dataset
from ..nets import weights
from ..nets.architectures import spec_of
from ..nets.convnet import ConvNet
from ..nets.lenet import LeNet
from ..nets.recipe import Recipe


def check_training(net: nn.Module, dataset: Dataset, recipe: Recipe) -> None:
    """Check that `net` can be trained on `dataset`.

    Raises:
        CourseError: If the data is not valid (`Dataset.check`), if the last batch of an epoch has one image, which
            BatchNorm cannot be trained on, if the net cannot process images of this size, or if it has too few
            outputs.
    """
    has_batchnorm = any(isinstance(module, _BatchNorm) for module in net.modules())
    dataset.check(recipe.batch_size if has_batchnorm else None)
    classes, side = len(dataset.classes), dataset.train_images.shape[-1]
    if type(net) in (ConvNet, LeNet) and (spec_of(net).classes, spec_of(net).image_size) == (classes, side):
        return  # built for such data
    outputs = _outputs(net, dataset.train_images[:2])
    if outputs < classes:
        raise CourseError(
            f"{spec_of(net).name} has {outputs} outputs, but the data has {classes} classes: build the net with "
            f"classes={classes}."
        )


@torch.no_grad()
def _outputs(net: nn.Module, images: torch.Tensor) -> int:
    """Return the number of outputs of `net`, found with a copy, so that the net itself does not change."""
    weights.initialize_scales(net)  # Brevitas damages a net that is copied before it has all of its scales
    device = next(net.parameters()).device
    shape = f"{images.shape[-2]} x {images.shape[-1]}"
    try:
        logits = copy.deepcopy(net).train()(normalize(images.expand(2, -1, -1, -1).to(device)))
    except (RuntimeError, ValueError, IndexError) as error:
        raise CourseError(
            f"{spec_of(net).name} cannot process images of {shape} pixels ({error}): resize the images, or build the "
            f"net with image_size={images.shape[-1]}."
        ) from error
    logits = getattr(logits, "value", logits)
    if logits.ndim != 2:
        raise CourseError(
            f"{spec_of(net).name} returns {tuple(logits.shape)} for two images of {shape} pixels: it has to return one "
            "row of logits per image."
        )
    return logits.shape[1]
