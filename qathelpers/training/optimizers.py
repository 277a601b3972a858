"""The optimizers of a recipe, and the learning rate schedule."""

import torch
from torch import nn

from ..nets import quantizers, weights
from ..nets.recipe import Recipe
from .muon import Muon


def make_optimizers(net: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return the optimizers of `recipe` for the parameters of `net`."""
    if recipe.optimizer == "adam":
        optimizers = [torch.optim.Adam(net.parameters(), recipe.lr)]
    else:
        optimizers = _muon_and_sgd(net, recipe)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def set_learning_rates(optimizers: list[torch.optim.Optimizer], progress: float, final_lr: float) -> None:
    """Lower all learning rates linearly.

    Args:
        optimizers: What `make_optimizers` returned.
        progress: Share of the training that is done, from 0 to 1.
        final_lr: Learning rate at the end, as a fraction of the initial one.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 - (1 - final_lr) * progress)


def _muon_and_sgd(net: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for weights, with clipped latent weights, and SGD for biases, BatchNorms and learned scales."""
    latent = [layer.weight for layer in weights.quantized_layers(net).values()]
    scales = {id(parameter) for parameter in quantizers.learned_parameters(net)}
    vectors = [p for p in net.parameters() if p.ndim <= 1 or id(p) in scales]
    rest = {id(p) for p in (*latent, *vectors)}
    floats = [p for p in net.parameters() if id(p) not in rest]
    groups = [{"params": floats}, {"params": latent, "clip": recipe.latent_clip}]
    optimizers = []
    if floats or latent:
        optimizers.append(Muon([group for group in groups if group["params"]], recipe.lr))
    if vectors:
        optimizers.append(torch.optim.SGD(vectors, recipe.bias_lr, momentum=0.85, nesterov=True))
    return optimizers
