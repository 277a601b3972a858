import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qathelpers.training.muon import Muon, orthogonalize


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
def test_the_size_of_a_gradient_makes_no_difference(rows, columns, scale, seed):
    gradient = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    result = orthogonalize(gradient)
    assert result.shape == gradient.shape
    torch.testing.assert_close(orthogonalize(gradient * scale), result, atol=1e-3, rtol=1e-2)
    assert torch.linalg.matrix_norm(result, 2) < 1.35


def test_singular_vectors_stay_and_values_come_near_1():
    gradient = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(gradient)
    u, _, vt = torch.linalg.svd(gradient, full_matrices=False)
    inner = u.T @ result @ vt.T
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-3
    assert inner.diagonal().min() > 0.3


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (10, 16)])
def test_weights_keep_their_norm(shape):
    weight = torch.nn.Parameter(torch.rand(shape) - 0.5)
    weight.grad = torch.randn(shape)
    Muon([weight], lr=0.0).step()
    assert weight.norm().item() == pytest.approx(shape[0] ** 0.5, rel=1e-4)


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_numbers_of_steps_below_one_are_refused(steps):
    with pytest.raises(ValueError, match="steps"):
        orthogonalize(torch.eye(3), steps)


def test_it_descends():
    weight = torch.nn.Parameter(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    target = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    optimizer, losses = Muon([weight], lr=0.05), []
    for _ in range(100):
        loss = (weight - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20


def test_parameters_without_gradient_are_left_alone():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    Muon([weight]).step()
    assert torch.equal(weight, torch.ones(2, 2))


def test_no_weight_grows_at_the_expense_of_all_others():
    """A gradient that always asks for more of one weight: its share of the norm stays bounded."""
    weight = torch.nn.Parameter(torch.rand(8, 50, generator=torch.Generator().manual_seed(0)) - 0.5)
    optimizer = Muon([weight], clip=2.0)
    for _ in range(100):
        weight.grad = torch.zeros_like(weight)
        weight.grad[3, 7] = -1.0
        optimizer.step()
    magnitudes = weight.detach().abs()
    assert magnitudes.argmax() == 3 * 50 + 7
    assert magnitudes.max() <= 2.01 * (1 / 50) ** 0.5
    assert magnitudes.median() > 0.05
