"""An optimizer that suits weights of one bit as well as float ones."""

import math
from collections.abc import Iterable

import torch
from torch import nn


def orthogonalize(gradient: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """Return the matrix with the singular vectors of `gradient` (rows, columns) and singular values near 1.

    Newton-Schulz iteration: nothing but matrix products. Three steps leave the singular values between about 0.3 and
    1.2, which trains as well as an exact answer would. What a step multiplies with depends on the products of the rows
    alone; the steps therefore work on that small square and the wide matrix is touched twice instead of six times.
    Source: K. Jordan et al., Muon: An optimizer for hidden layers in neural networks (kellerjordan.github.io, 2024).
    """
    if gradient.size(0) > gradient.size(1):
        return orthogonalize(gradient.T, steps).T
    x = gradient / (gradient.norm() + 1e-7)
    gram = x @ x.T
    product = factor = _step(gram)
    for _ in range(steps - 1):
        gram = factor @ gram @ factor
        factor = _step(gram)
        product = factor @ product
    return product @ x


def _step(gram: torch.Tensor) -> torch.Tensor:
    """Return what a Newton-Schulz step multiplies a matrix with whose rows have the products `gram`."""
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return 3.4445 * identity - 4.7750 * gram + 2.0315 * gram @ gram


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, on weights that keep their norm.

    A step moves every direction of a weight matrix by the same amount, whatever the scale of its gradient: it makes no
    difference that the gradient of a binary weight is multiplied by a small scale and that of a float weight is not.
    Each weight tensor is first brought to a norm of the square root of its number of outputs, so that `lr` is relative
    to the weights. With `clip` no weight becomes larger than so many times the root mean square. Latent weights need
    it: beyond the highest level one has nothing to gain, yet it would grow on, and with the norm fixed all others would
    shrink to 0.

    torch.optim.Muon takes matrices only; this one takes convolutions too, and keeps the norm.
    Source: K. Jordan et al., Muon (2024); the norm is that of airbench94_muon (KellerJordan/cifar10-airbench); latent
    weights are clipped since BinaryConnect (M. Courbariaux et al., arXiv 1511.00363).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict],
        lr: float = 0.12,
        momentum: float = 0.6,
        clip: float = math.inf,
    ) -> None:
        """Take parameters of two or more dimensions, outputs first; `lr` is relative to the weights' norm."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "clip": clip})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group["lr"], group["momentum"], group["clip"])

    def _update(self, weight: nn.Parameter, lr: float, momentum: float, clip: float) -> None:
        state = self.state[weight]
        if not state:
            state["velocity"] = torch.zeros_like(weight)
        velocity = state["velocity"].mul_(momentum).add_(weight.grad)
        direction = weight.grad.add(velocity, alpha=momentum).flatten(1)  # Nesterov's
        weight.mul_(len(weight) ** 0.5 / (weight.norm() + 1e-7))
        weight.add_(orthogonalize(direction).view_as(weight), alpha=-lr)
        limit = clip * (len(weight) / weight.numel()) ** 0.5
        weight.clamp_(-limit, limit)
