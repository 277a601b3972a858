"""Muon, an optimizer that suits one-bit weights as well as float weights."""

import math
from collections.abc import Iterable

import torch
from torch import nn


def orthogonalize(gradient: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """Return a matrix with the singular vectors of `gradient` and singular values near 1.

    This is the Newton-Schulz iteration, which needs only matrix products. Three steps leave the singular values between
    about 0.3 and 1.2. Nets train as well with these as with exact orthogonalization. Each step depends only on the Gram
    matrix of the rows, so all steps work on that small square matrix, and the wide matrix is read twice instead of six
    times.

    Args:
        gradient: A matrix (rows, columns).
        steps: Number of iterations.

    Reference:
        K. Jordan et al., Muon: An optimizer for hidden layers in neural networks (kellerjordan.github.io, 2024).
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
    """Return the factor of one Newton-Schulz step, given the Gram matrix of the rows."""
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return 3.4445 * identity - 4.7750 * gram + 2.0315 * gram @ gram


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalized updates, on weights whose norm stays fixed.

    A step moves every direction of a weight matrix by the same amount, whatever the scale of the gradient. It therefore
    does not matter that the gradient of a binary weight is multiplied by a small scale and that of a float weight is
    not. Before each step, the norm of every weight tensor is rescaled to the square root of its number of outputs, so
    `lr` is relative to the norm of the weights.

    torch.optim.Muon accepts matrices only. This one also accepts convolutions, and it keeps the norm fixed.

    Args:
        params: Parameters of two or more dimensions, outputs first.
        lr: Learning rate, relative to the norm of the weights.
        momentum: Momentum (Nesterov).
        clip: Bound on the magnitude of weights, in multiples of their root mean square. Latent weights need this bound:
            beyond the highest level, a latent weight no longer changes the output but would keep growing. Since the
            norm is fixed, all other weights would then shrink to 0.

    Reference:
        K. Jordan et al., Muon (2024).
        K. Jordan, airbench94_muon (KellerJordan/cifar10-airbench), for the fixed norm.
        M. Courbariaux et al., BinaryConnect (arXiv 1511.00363), for clipping latent weights.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict],
        lr: float = 0.12,
        momentum: float = 0.6,
        clip: float = math.inf,
    ) -> None:
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
        direction = weight.grad.add(velocity, alpha=momentum).flatten(1)  # Nesterov
        weight.mul_(len(weight) ** 0.5 / (weight.norm() + 1e-7))
        weight.add_(orthogonalize(direction).view_as(weight), alpha=-lr)
        limit = clip * (len(weight) / weight.numel()) ** 0.5
        weight.clamp_(-limit, limit)
