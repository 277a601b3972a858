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
from ..nets.recipe import Recipe
from .evaluation import as_logits, in_its_format, is_of_the_course


def check_training(net: nn.Module, dataset: Dataset, recipe: Recipe) -> None:
    """Check that `net` can be trained on `dataset`.

    Raises:
        CourseError: If the data is not valid (`Dataset.check`), if the last batch of an epoch has one image, which
            BatchNorm cannot be trained on, if the net cannot process images of this size and number of channels, or if
            it has too few outputs.
    """
    has_batchnorm = any(isinstance(module, _BatchNorm) for module in net.modules())
    dataset.check(recipe.batch_size if has_batchnorm else None)
    classes, spec = len(dataset.classes), spec_of(net)
    if is_of_the_course(net) and (spec.classes, spec.image) == (classes, dataset.train_images.shape[1:]):
        return  # built for such data
    outputs = _outputs(net, dataset.train_images[:2])
    if outputs < classes:
        raise CourseError(
            f"{spec.name} has {outputs} outputs, but the data has {classes} classes: build the net with "
            f"classes={classes}."
        )


@torch.no_grad()
def _outputs(net: nn.Module, images: torch.Tensor) -> int:
    """Return the number of outputs of `net`, found with a copy, so that the net itself does not change."""
    weights.initialize_scales(net)  # Brevitas damages a net that is copied before it has all of its scales
    parameter = next((p for p in net.parameters() if p.requires_grad), None)
    if parameter is None:
        raise CourseError(f"{spec_of(net).name} has no parameters that can be trained: add layers, or unfreeze some.")
    device = parameter.device
    channels, side = images.shape[1], images.shape[-1]
    shape = f"{side} x {side}"
    pair = in_its_format(net, normalize(images.expand(2, -1, -1, -1).to(device)))
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # dropout draws random numbers
            output = copy.deepcopy(net).train()(pair)
    except Exception as error:  # a net of your own can raise anything
        way_out = f"resize the images, or build the net with image_size={side}"
        if spec_of(net).channels not in (None, channels):
            way_out = f"build the net with channels={channels} and image_size={side}"
        raise CourseError(
            f"{spec_of(net).name} cannot process images of {channels} x {side} x {side} (channels x height x width): "
            f"{way_out} ({error})."
        ) from error
    logits = as_logits(output)
    if logits.ndim != 2:
        raise CourseError(
            f"{spec_of(net).name} returns {tuple(logits.shape)} for two images of {shape} pixels: it has to return one "
            "row of logits per image."
        )
    return logits.shape[1]
