"""Which optimizer gets which parameter, and with which settings."""

import functools

import pytest
import torch
from brevitas.quant import Int8WeightPerChannelFloat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qathelpers.nets import SCHEMES, Recipe, Scheme, build, quantizers, weights
from qathelpers.nets.recipe import OPTIMIZERS
from qathelpers.training import Muon, make_optimizers
from qathelpers.training.optimizers import set_learning_rates

# The scale of each output channel of a weight is a parameter of four dimensions, or of two in a linear layer.
LEARNED = Int8WeightPerChannelFloat.let(scaling_impl_type="parameter_from_stats")
OWN = {
    "learned scales": Scheme("MyNN", "W8A4", LEARNED, quantizers.Int4Activation, first_last=None),
    "learned scales everywhere": Scheme("MyNN", "W8A4", LEARNED, quantizers.Int4Activation, first_last=LEARNED),
}


@functools.cache
def net_of(scheme, arch):
    return build(OWN.get(scheme, scheme), arch)


def parameters_of(optimizers):
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return [id(parameter) for group in groups for parameter in group["params"]]


recipes = st.builds(
    Recipe,
    batch_size=st.integers(1, 1000),
    optimizer=st.sampled_from(OPTIMIZERS),
    lr=st.floats(0, 10),
    bias_lr=st.floats(0, 10),
    final_lr=st.floats(0, 1),
    latent_clip=st.floats(0.01, 100),
)


@settings(max_examples=100, deadline=None)
@given(recipe=recipes, scheme=st.sampled_from([*SCHEMES, *OWN]), arch=st.sampled_from(["lenet", "convnet-x0.1"]))
def test_every_parameter_is_in_exactly_one_optimizer(recipe, scheme, arch):
    net = net_of(scheme, arch)
    found = parameters_of(make_optimizers(net, recipe))
    assert sorted(found) == sorted(id(parameter) for parameter in net.parameters())


@pytest.mark.parametrize("scheme", ["Int4NN", "Int2NN", *OWN])
def test_learned_scales_are_trained_by_sgd_whatever_their_shape(scheme):
    net, recipe = net_of(scheme, "lenet"), Recipe(bias_lr=0.25)
    scales = quantizers.learned_parameters(net)
    (sgd,) = (o for o in make_optimizers(net, recipe) if isinstance(o, torch.optim.SGD))
    assert scales and {id(scale) for scale in scales} <= set(parameters_of([sgd]))
    assert {group["lr"] for group in sgd.param_groups} == {0.25}
    if scheme in OWN:
        assert {4, 2} <= {scale.ndim for scale in scales}


@pytest.mark.parametrize("scheme", ["PytorchNN", "BinaryNN", "BinaryNN-8bit-first-last", "Int4NN", *OWN])
def test_muon_trains_weights_and_clips_the_latent_ones(scheme):
    net = net_of(scheme, "lenet")
    (muon,) = (o for o in make_optimizers(net, Recipe(lr=0.1, latent_clip=3.0)) if isinstance(o, Muon))
    clips = {id(parameter): group["clip"] for group in muon.param_groups for parameter in group["params"]}
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    latent = {id(layer.weight) for layer in weights.quantized_layers(net).values()}
    assert clips == {id(layer.weight): 3.0 if id(layer.weight) in latent else float("inf") for layer in layers}
    assert {group["lr"] for group in muon.param_groups} == {0.1}


def test_a_recipe_with_adam_trains_everything_with_adam():
    net = net_of("XnorNN", "lenet")
    (optimizer,) = make_optimizers(net, net.spec.recipe)
    assert isinstance(optimizer, torch.optim.Adam)
    assert [group["lr"] for group in optimizer.param_groups] == [net.spec.recipe.lr]


@pytest.mark.parametrize("net", [nn.BatchNorm1d(3), nn.Linear(3, 4, bias=False)])
def test_a_net_may_have_only_vectors_or_only_matrices(net):
    (optimizer,) = make_optimizers(net, Recipe())
    assert parameters_of([optimizer]) == [id(parameter) for parameter in net.parameters()]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_learning_rates_fall_linearly_to_their_final_share(kind):
    optimizers = make_optimizers(net_of("BinaryNN", "lenet"), Recipe(optimizer=kind, lr=0.4, bias_lr=0.4))
    for progress, expected in ((0, 0.4), (0.5, 0.22), (1, 0.04), (0, 0.4)):
        set_learning_rates(optimizers, progress, final_lr=0.1)
        rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
        assert rates == pytest.approx([expected] * len(rates))
