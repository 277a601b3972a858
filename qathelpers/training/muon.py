"""Muon, an optimizer that suits one-bit weights as well as float weights."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from ..common.errors import check_whole


def orthogonalize(gradient: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """Return a matrix with the singular vectors of `gradient` and singular values near 1.

    This is the Newton-Schulz iteration, which needs only matrix products. Three steps leave the singular values between
    about 0.3 and 1.2. Nets train as well with these as with exact orthogonalization. Each step depends only on the Gram
    matrix of the rows, so all steps work on that small square matrix, and the wide matrix is read twice instead of six
    times.

    Args:
        gradient: A matrix (rows, columns).
        steps: Number of iterations, at least 1.

    Raises:
        ValueError: If `steps` is not a whole number of at least 1.

    Reference:
        K. Jordan et al., Muon: An optimizer for hidden layers in neural networks (kellerjordan.github.io, 2024).
    """
    return orthogonalize_all([gradient], steps)[0]


def orthogonalize_all(gradients: Sequence[torch.Tensor], steps: int = 3) -> list[torch.Tensor]:
    """Return `orthogonalize` of each matrix; matrices with Gram matrices of the same size are computed as one batch.

    On a GPU, launching an operation takes longer than computing it on matrices as small as these.
    """
    check_whole("steps", steps, 1)
    lengths = torch._foreach_norm(gradients)
    torch._foreach_add_(lengths, 1e-7)
    wide = [x if x.size(0) <= x.size(1) else x.T for x in torch._foreach_div(gradients, lengths)]
    results = list(gradients)
    for size in {len(x) for x in wide}:
        numbers = [number for number, x in enumerate(wide) if len(x) == size]
        products = _newton_schulz(torch.stack([wide[number] @ wide[number].T for number in numbers]), steps)
        for number, product in zip(numbers, products, strict=True):
            result = product @ wide[number]
            results[number] = result if result.shape == gradients[number].shape else result.T
    return results


def _newton_schulz(grams: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the product of the factors of all steps, for each Gram matrix of a batch (n, rows, rows)."""
    product = factor = _step(grams)
    for _ in range(steps - 1):
        grams = factor @ grams @ factor
        factor = _step(grams)
        product = factor @ product
    return product


def _step(grams: torch.Tensor) -> torch.Tensor:
    """Return the factor of one Newton-Schulz step, given Gram matrices (n, rows, rows)."""
    factor = torch.baddbmm(grams, grams, grams, beta=-4.7750, alpha=2.0315)
    factor.diagonal(dim1=1, dim2=2).add_(3.4445)
    return factor


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
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._update(weights, group["lr"], group["momentum"], group["clip"])

    def _update(self, weights: list[nn.Parameter], lr: float, momentum: float, clip: float) -> None:
        gradients = [weight.grad for weight in weights]
        velocities = [self._velocity(weight) for weight in weights]
        torch._foreach_mul_(velocities, momentum)
        torch._foreach_add_(velocities, gradients)
        directions = torch._foreach_add(gradients, velocities, alpha=momentum)  # Nesterov
        # Channels last, as the weights of the course's nets are in memory. The order of the columns does not matter.
        updates = orthogonalize_all([direction.movedim(1, -1).flatten(1) for direction in directions])
        factors = torch._foreach_norm(weights)
        torch._foreach_add_(factors, 1e-7)
        torch._foreach_reciprocal_(factors)
        torch._foreach_mul_(factors, [len(weight) ** 0.5 for weight in weights])
        torch._foreach_mul_(weights, factors)
        for weight, update in zip(weights, updates, strict=True):
            weight.add_(update.reshape(weight.movedim(1, -1).shape).movedim(-1, 1), alpha=-lr)
        if clip < math.inf:
            limits = [clip * (len(weight) / weight.numel()) ** 0.5 for weight in weights]
            torch._foreach_clamp_max_(weights, limits)
            torch._foreach_clamp_min_(weights, [-limit for limit in limits])

    def _velocity(self, weight: nn.Parameter) -> torch.Tensor:
        state = self.state[weight]
        if not state:
            state["velocity"] = torch.zeros_like(weight)
        return state["velocity"]
