"""Refuse a training that cannot work, before its first step."""

import copy

import torch
from brevitas import nn as qnn
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..common.errors import CourseError, raise_if_of_the_machine
from ..data.batches import normalize, progressive_side
from ..data.dataset import Dataset
from ..nets import weights
from ..nets.architectures import ADAM_LR, build, spec_of
from ..nets.identity import structure_digest
from ..nets.recipe import Recipe
from .evaluation import as_logits, cannot_process, memory_format

SIGMOIDS = ("SigmoidBackward0", "HardsigmoidBackward0")
USE_ADAM = f"Recipe(optimizer='adam', lr={ADAM_LR})"


def check_training(net: nn.Module, dataset: Dataset, recipe: Recipe) -> list[str]:
    """Check that `net` can be trained on `dataset`.

    Returns:
        Warnings, one sentence each.

    Raises:
        CourseError: If the data is not valid (`Dataset.check`), if the last batch of an epoch has one image, which
            BatchNorm cannot be trained on, if parameters of the net have a type other than float32, if the net cannot
            process images of this size and number of channels, if it has too few outputs or ends in a Softmax or a
            Sigmoid, or if Muon would harm a net that `build` did not make.
    """
    _check_parameters(net)
    has_batchnorm = any(isinstance(module, _BatchNorm) for module in net.modules())
    dataset.check(recipe.batch_size if has_batchnorm else None)
    if not _is_built_for(net, dataset):
        _check_logits(net, dataset)
    if recipe.progressive_resizing:
        _check_small_images(net, dataset)
    return _check_optimizer(net, recipe)


def _check_parameters(net: nn.Module) -> None:
    name = spec_of(net).name
    for key, parameter in net.named_parameters():
        if parameter.is_inference():
            raise CourseError(
                f"{name} was made in torch.inference_mode(), so it cannot be trained: build it outside that mode."
            )
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise CourseError(f"{key} of {name} is {parameter.dtype}, not float32: call net.float() before training.")


def _check_logits(net: nn.Module, dataset: Dataset) -> None:
    classes, name = len(dataset.classes), spec_of(net).name
    sigmoids: list[torch.Tensor] = []
    logits = logits_for_two_images(net, dataset.train_images[:2], sigmoids)
    if logits.shape[1] < classes:
        raise CourseError(
            f"{name} has {logits.shape[1]} outputs, but the data has {classes} classes: build the net with "
            f"classes={classes}."
        )
    if _ends_in_sigmoid(logits) or any(torch.equal(output.flatten(), logits.flatten()) for output in sigmoids):
        raise CourseError(
            f"{name} ends in a Sigmoid, but the training computes a softmax of the net's outputs, so it would hardly "
            "learn from values between 0 and 1: remove the Sigmoid at the end of the net."
        )
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones(2, device=logits.device), atol=1e-3):
        raise CourseError(
            f"{name} returns probabilities, but the training computes the softmax itself, so the net would hardly "
            "learn: remove the Softmax at the end of the net."
        )


def _ends_in_sigmoid(logits: torch.Tensor) -> bool:
    """Return whether logits are values from 0 to 1 that a Sigmoid computed; they may have been reshaped since."""
    if bool((logits < 0).any() or (logits > 1).any()):
        return False
    operation = logits.grad_fn
    while operation is not None and operation.name() not in SIGMOIDS:
        inputs = operation.next_functions
        operation = inputs[0][0] if len(inputs) == 1 else None
    return operation is not None


def _is_built_for(net: nn.Module, dataset: Dataset) -> bool:
    """Return whether `net` is one of the course's, just as `build` makes it for such data, so it need not be tried."""
    spec = spec_of(net)
    is_ours = type(net).__module__.startswith("qathelpers.nets.") and spec.seed is not None
    if not is_ours or (spec.classes, spec.image) != (len(dataset.classes), dataset.train_images.shape[1:]):
        return False
    sizes = {"classes": spec.classes, "image_size": spec.image_size, "channels": spec.channels}
    try:
        return structure_digest(net) == structure_digest(build(spec.scheme, spec.arch, **sizes))
    except CourseError:  # its architecture is not registered any more
        return False


def _check_optimizer(net: nn.Module, recipe: Recipe) -> list[str]:
    if recipe.optimizer != "muon" or weights.scales_follow_weights(net):
        return []
    spec = spec_of(net)
    problem = (
        f"{spec.name} has quantizers whose scales do not follow the weights. Muon rescales the weights, so most of "
        "them may end up at one level"
    )
    if spec.seed is None:
        raise CourseError(f"{problem}: leave out recipe, or pass {USE_ADAM}.")
    return [f"Warning: {problem}; {USE_ADAM} avoids that."]


def _check_small_images(net: nn.Module, dataset: Dataset) -> None:
    """Check that `net` can process the first, smallest images of progressive resizing."""
    side = progressive_side(0, dataset.train_images.shape[-1])
    small = dataset.train_images[:2, :, :side, :side]
    try:
        logits_for_two_images(net, small)
    except CourseError as error:
        raise CourseError(
            f"{spec_of(net).name} ({spec_of(net).arch}) cannot process the images of {side} x {side} pixels that "
            "progressive_resizing starts with: set progressive_resizing=0."
        ) from error


@torch.no_grad()
def logits_for_two_images(
    net: nn.Module, images: torch.Tensor, sigmoids: list[torch.Tensor] | None = None
) -> torch.Tensor:
    """Return the logits (2, outputs) for two images, or for one image twice.

    A copy computes them, so that the net itself does not change. The outputs of Brevitas' QuantSigmoids, whose
    gradients do not tell what they are, are appended to `sigmoids`.

    Raises:
        CourseError: If the net cannot process the images, has nothing to train, or does not return logits.
    """
    weights.initialize_scales(net)  # Brevitas damages a net that is copied before it has all of its scales
    parameter = next((p for p in net.parameters() if p.requires_grad), None)
    if parameter is None:
        raise CourseError(f"{spec_of(net).name} has no parameters that can be trained: add layers, or unfreeze some.")
    device = parameter.device
    pair = normalize(images.expand(2, -1, -1, -1).to(device)).contiguous(memory_format=memory_format(net, device))
    try:
        tried = copy.deepcopy(net).train()
        for module in tried.modules():
            if sigmoids is not None and isinstance(module, qnn.QuantSigmoid):
                module.register_forward_hook(lambda _module, _inputs, output: sigmoids.append(as_logits(output)))
        drawing = torch.random.fork_rng([device] if device.type == "cuda" else [])  # dropout draws random numbers
        with drawing, torch.enable_grad():  # so that the logits know from which operation they come
            output = tried(pair)
    except RecursionError as error:
        raise CourseError(
            f"{spec_of(net).name} calls itself endlessly: look for the cause in its forward. If it has Brevitas' "
            "activation quantizers that search scales with MSE or HQO, choose others: their copies do the same."
        ) from error
    except Exception as error:  # a net of your own can raise anything
        raise_if_of_the_machine(error)
        raise cannot_process(net, images.shape, error) from error
    logits = as_logits(output)
    if logits.ndim != 2 or len(logits) != 2:
        raise CourseError(
            f"{spec_of(net).name} returns {tuple(logits.shape)} for two images: it has to return one "
            "row of logits per image."
        )
    return logits
