"""Every quantizer that Brevitas ships is trained, saved, loaded, resumed and packed, or refused."""

import brevitas.nn as qnn
import brevitas.quant
import pytest
import torch
from brevitas.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat
from torch import nn

from qathelpers.analysis import costs
from qathelpers.common.errors import CourseError
from qathelpers.nets import Recipe, Scheme, build, quantizers, weights
from qathelpers.training import checkpoint, fit, make_optimizers, predict

QUIET = {"log": lambda line: None, "on_batch": lambda share: None}
SHIPPED = [name for name in dir(brevitas.quant) if quantizers.is_weight_quantizer(getattr(brevitas.quant, name))]
QUANTIZERS = {name: getattr(brevitas.quant, name) for name in SHIPPED} | {
    "learned": Int8WeightPerTensorFloat.let(scaling_impl_type="parameter_from_stats", bit_width=3),
    "learned per channel": Int8WeightPerChannelFloat.let(scaling_impl_type="parameter_from_stats", bit_width=3),
    "of the course": quantizers.TernaryWeight,
}
COMPLETE = [name for name, quantizer in QUANTIZERS.items() if not quantizers.problem_with(quantizer)]


ACTIVATIONS = {
    name: getattr(brevitas.quant, name)
    for name in dir(brevitas.quant)
    if quantizers.is_activation_quantizer(getattr(brevitas.quant, name))
}
COMPLETE_ACTIVATIONS = [name for name, quantizer in ACTIVATIONS.items() if not quantizers.problem_with(quantizer)]


def small_net(quantizer):
    torch.manual_seed(0)
    return nn.Sequential(
        qnn.QuantConv2d(3, 8, 4, stride=4, bias=False, weight_quant=quantizer),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        qnn.QuantLinear(8 * 64, 10, bias=False, weight_quant=quantizer),
    )


def test_there_are_many():
    assert len(COMPLETE) > 50 and len(COMPLETE_ACTIVATIONS) > 30


@pytest.mark.parametrize("name", sorted(set(QUANTIZERS) - set(COMPLETE)))
def test_an_incomplete_one_is_refused_by_the_scheme(name):
    with pytest.raises(CourseError) as caught:
        Scheme("MyNN", "W8A32", QUANTIZERS[name], first_last=None)
    assert "weight" in str(caught.value) and QUANTIZERS[name].__name__ in str(caught.value)


@pytest.mark.parametrize("name", COMPLETE)
def test_a_trained_net_is_loaded_as_it_was_saved(name, tiny, tmp_path):
    few, net = tiny.take(60, 20), small_net(QUANTIZERS[name])
    history = fit(net, few, 1, device="cpu", **QUIET)
    expected = predict(net, few.test_images)
    path = checkpoint.save(net, tmp_path / "net.safetensors", history.config)
    assert torch.equal(predict(checkpoint.load(path, small_net(QUANTIZERS[name])), few.test_images), expected)
    try:
        checkpoint.save(net, path, history.config | {"precision": "fp32"}, packed=True)
    except CourseError as error:
        assert "packed" in str(error)
    else:
        loaded = predict(checkpoint.load(path, small_net(QUANTIZERS[name])), few.test_images)
        assert torch.allclose(loaded, expected, atol=1e-5)
    assert torch.equal(predict(net, few.test_images), expected)  # saving left the net alone


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - set(COMPLETE_ACTIVATIONS)))
def test_an_activation_quantizer_that_is_incomplete_is_refused_by_the_scheme(name):
    with pytest.raises(CourseError) as caught:
        Scheme("MyNN", "W32A8", activation=ACTIVATIONS[name])
    assert "activation" in str(caught.value) and ACTIVATIONS[name].__name__ in str(caught.value)


@pytest.mark.parametrize("name", COMPLETE_ACTIVATIONS)
def test_a_net_with_quantized_activations_is_loaded_and_resumed_as_it_was_saved(name, tiny, tmp_path):
    scheme, few = Scheme("MyNN", "W32A8", activation=ACTIVATIONS[name]), tiny.take(60, 20)
    net = build(scheme, "lenet")
    path = checkpoint.save(net, tmp_path / "untrained.safetensors", {"name": "MyNN", "arch": "lenet"})
    assert torch.equal(
        predict(checkpoint.load(path, build(scheme, "lenet", 1)), few.test_images), predict(net, few.test_images)
    )

    history = fit(net, few, 2, device="cpu", **QUIET)
    expected = predict(net, few.test_images)
    path = checkpoint.save(net, tmp_path / "net.safetensors", history.config)
    assert torch.equal(predict(checkpoint.load(path, build(scheme, "lenet")), few.test_images), expected)

    def stop(history):
        raise KeyboardInterrupt

    fit(build(scheme, "lenet"), few, 2, device="cpu", folder=tmp_path, on_epoch=stop, **QUIET)
    resumed = fit(build(scheme, "lenet"), few, 2, device="cpu", folder=tmp_path, **QUIET)
    for column in ("train_loss", "test_loss"):
        assert resumed[column].tolist() == history[column].tolist()


@pytest.mark.parametrize("name", COMPLETE_ACTIVATIONS)
def test_the_costs_have_the_bits_of_the_activations(name):
    net = build(Scheme("MyNN", "W32A8", activation=ACTIVATIONS[name]), "lenet")
    bits = {"SignedBinaryActPerTensorConst": 1, "SignedTernaryActPerTensorConst": 2, "NoneActQuant": 32}.get(name, 8)
    assert costs.layers(net)["A"].tolist() == [8, bits, bits, bits, bits]


@pytest.mark.parametrize("name", ["learned", "learned per channel", "Int8WeightPerTensorFloatMSE", "of the course"])
def test_an_interrupted_training_ends_as_one_that_was_not(name, tiny, tmp_path):
    def stop(history):
        raise KeyboardInterrupt

    few = tiny.take(60, 20)
    whole = fit(small_net(QUANTIZERS[name]), few, 2, device="cpu", **QUIET)
    fit(small_net(QUANTIZERS[name]), few, 2, device="cpu", folder=tmp_path, on_epoch=stop, **QUIET)
    resumed = fit(small_net(QUANTIZERS[name]), few, 2, device="cpu", folder=tmp_path, **QUIET)
    assert resumed["train_loss"].tolist() == whole["train_loss"].tolist()


def test_muon_is_only_for_scales_that_follow_the_weights():
    for quantizer, follows in (
        (quantizers.TernaryWeight, True),
        (quantizers.Int4Weight, True),
        (brevitas.quant.SignedTernaryWeightPerTensorConst, False),
        (QUANTIZERS["learned per channel"], False),
    ):
        net = build(Scheme("MyNN", "W?A32", quantizer, first_last=quantizer), "lenet")
        latent = {name: layer.weight.clone() for name, layer in weights.quantized_layers(net).items()}
        assert weights.scales_follow_weights(net) == follows
        assert net.spec.recipe.optimizer == ("muon" if follows else "adam")
        for name, layer in weights.quantized_layers(net).items():  # looking changes nothing
            assert torch.equal(layer.weight, latent[name])


def test_a_learned_scale_moves_a_little_in_one_step():
    net = build(Scheme("MyNN", "W3A32", QUANTIZERS["learned per channel"], first_last=None), "lenet")
    weights.initialize_scales(net)
    images, labels = torch.randn(32, 3, 32, 32), torch.arange(32) % 10
    for recipe in (net.spec.recipe, Recipe(optimizer="muon")):
        before = [parameter.clone() for parameter in quantizers.learned_parameters(net)]
        optimizers = make_optimizers(net, recipe)
        nn.functional.cross_entropy(net(images), labels).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        after = quantizers.learned_parameters(net)
        for one, other in zip(before, after, strict=True):
            assert not torch.equal(one, other) and (other / one - 1).abs().max() < 0.5


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"weight": quantizers.Int4Activation, "first_last": None}, "weight"),
        ({"weight": quantizers.BinaryWeight, "first_last": quantizers.Int4Activation}, "first_last"),
        ({"weight": quantizers.BinaryWeight}, "first_last"),
        ({"activation": quantizers.Int4Weight}, "activation"),
        ({"weight": nn.ReLU, "first_last": None}, "weight"),
        ({"activation": nn.ReLU}, "activation"),
        ({"weight": brevitas.quant.Int32Bias, "first_last": None}, "weight"),
        ({"activation": "sign"}, "activation"),
    ],
    ids=str,
)
def test_a_quantizer_in_the_wrong_argument_is_named(arguments, named):
    with pytest.raises(CourseError, match=f"^{named} of MyNN"):
        Scheme("MyNN", "W?A?", **arguments)
