"""The exercises of notebook 03, the binary net."""

import copy

import brevitas.nn as qnn
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ..nets import quantizers, weights
from ..training.evaluation import predict
from .exercise import exercise
from .verdicts import Verdict, number, prediction


@exercise(
    blank="""
        layer_scale = None
        first = None
    """,
    hint="The scale is the mean of the magnitudes. A binary weight is the scale times a sign.",
    solution="""
        four = torch.tensor([0.5, -0.1, 0.3, -0.7])
        layer_scale = four.abs().mean()
        first = layer_scale * four[0].sign()
    """,
    explanation="The magnitudes 0.5, 0.1, 0.3 and 0.7 have the mean 0.4, so each of the four weights becomes +0.4 or "
    "-0.4. The information that one magnitude was seven times as large as another is lost.",
    wrong=[
        (
            "layer_scale = torch.tensor([0.5, -0.1, 0.3, -0.7]).mean()\nfirst = 0.4",
            "take the mean of their magnitudes.",
        ),
        ("layer_scale = 0.7\nfirst = 0.7", "which 8-bit quantizers use."),
        ("layer_scale = 0.4\nfirst = 1", "multiply it by the scale."),
    ],
)
def q1(layer_scale, first):
    """*On paper.* Take the weights 0.5, -0.1, 0.3 and -0.7. What is their scale? What is the first weight after
    binarization?
    """
    means = [
        (0.0, "That is the mean of the weights; take the mean of their magnitudes."),
        (0.7, "That is the largest magnitude, which 8-bit quantizers use."),
    ]
    return [
        number("layer_scale", layer_scale, 0.4, mistakes=means),
        number("first", first, 0.4, mistakes=[(1, "That is the integer; multiply it by the scale.")]),
    ]


@exercise(
    blank="entry = None",
    hint="All $g_j$ are 1, so the sum is the number of positive weights minus the number of negative ones. Count both "
    "in the matrix of latent weights above.",
    solution="""
        total = latent.sign().sum()  # five positive weights, seven negative ones
        entry = scale + latent[0, 0].sign() / latent.numel() * total
    """,
    explanation="Five signs are positive and seven are negative, so the sum is -2, and the entry is 0.8506 - 2/12 = "
    "0.6840. If a positive weight grows, the scale grows with it. Because most weights are negative, a larger scale "
    "lowers the sum of the quantized weights.",
    wrong=[
        ("entry = scale", "share of the scale's own gradient"),
        ("entry = scale + 2 / 12", "The sum of the signs is negative here"),
        ("entry = 1", "without the scale"),
    ],
)
def q2(entry, latent):
    """*On paper.* Now the upstream gradient is 1 for all twelve weights, not only for the first row. What is the
    gradient of the latent weight at the top left?
    """
    scale, share = latent.abs().mean().item(), latent.sign().mean().item() * latent[0, 0].sign().item()
    mistakes = [
        (scale, "That is s times g. The share of the scale's own gradient is missing."),
        (scale - share, "The sum of the signs is negative here, so the second term has the wrong sign."),
        (1, "That is the gradient of the straight-through estimator without the scale; here Q(w) is s times the sign."),
    ]
    return number("entry", entry, scale + share, mistakes=mistakes)


@exercise(
    blank="percent_changed = None",
    hint="The sum of the shares is an upper limit. Which signs count in the sum, but do not differ between start and "
    "end?",
    solution="percent_changed = 100 * changed(snapshots[0], snapshots[-1])",
    explanation="The share is smaller than the sum of the shares of the epochs. A sign that flips in one epoch and "
    "flips back in another epoch counts twice in the sum, but not at all from start to end.",
    wrong=[
        (
            "percent_changed = 100 * sum(changed(*pair) for pair in pairwise(snapshots))",
            "Signs that flip and flip back",
        ),
        ("percent_changed = 'few'", "A number is expected here."),
    ],
)
def q3(percent_changed, snapshots):
    """*Predict, then run.* What percentage of this layer's signs differ between the start and the end of the training?
    Predict the percentage from the shares above.
    """
    measured = 100 * (snapshots[0].sign() != snapshots[-1].sign()).float().mean().item()
    lesson = "Signs that flip and flip back count twice in the sum of the epochs, and not at all from start to end."
    return prediction("percent_changed", percent_changed, measured, lesson=lesson, close=0.1)


@exercise(
    blank="percent_correct = None",
    hint="In eval mode, a BatchNorm divides by the standard deviation that it measured during training. How large are "
    "the outputs of the quantized layers now?",
    solution="percent_correct = 100 * accuracy(scaled(net, 2))",
    explanation="In eval mode, a BatchNorm subtracts the mean and divides by the standard deviation that it measured "
    "during training. These statistics belong to the old scale. The outputs of each layer are therefore too large, and "
    "the next layer enlarges them again.",
    wrong=[
        ("percent_correct = 100 * accuracy(net)", "stale"),
        ("percent_correct = 'unchanged'", "A number is expected here."),
    ],
)
def q4(percent_correct, net, dataset):
    """*Predict, then run.* What happens in eval mode? Predict the test accuracy, in percent, after all latent weights
    have been multiplied by 2.
    """
    if percent_correct is None:
        return Verdict("percent_correct", "open")
    doubled = copy.deepcopy(net)
    with torch.no_grad():
        for layer in weights.quantized_layers(doubled).values():
            layer.weight.mul_(2)
    images, labels = dataset.test_images[:2000], dataset.test_labels[:2000]
    measured = 100 * (predict(doubled, images).argmax(1) == labels).float().mean().item()
    lesson = "The running statistics are stale: they belong to the old scale."
    return prediction("percent_correct", percent_correct, measured, lesson=lesson)


@exercise(
    blank="PerChannel = None  # replace this line by a class",
    hint="`scaling_per_output_type` says which weights share a scale. In `Binary`, all weights of the tensor share one "
    "scale.",
    solution="""
        class PerChannel(Binary):
            scaling_per_output_type = "channel"
    """,
    explanation="""
        The four channels have four scales. In training mode, the BatchNorm after the layer divides each channel by the
        standard deviation of this channel. A factor per channel therefore makes no difference, and both quantizers give
        the same output. A scale per channel helps where no BatchNorm follows.
    """,
    wrong=[
        ("class PerChannel(Binary):\n    pass", "one scale for the whole layer"),
        ("class PerChannel(Binary):\n    scaling_per_output_type = 'row'", "Brevitas cannot build this quantizer"),
        (
            "class PerChannel(Binary):\n    scaling_per_output_type = 'channel'\n    scaling_stats_op = 'max'",
            "mean mag",
        ),
    ],
)
def q5(PerChannel):
    """*Write it.* Derive a class from `Binary` whose quantizer has one scale per output channel. The check builds a
    convolution with four output channels twice: once with your quantizer, and once with the quantizer above. It
    compares the outputs of both convolutions after a BatchNorm. Do you expect a difference?
    """
    if PerChannel is None:
        return Verdict("PerChannel", "open")
    if not quantizers.is_weight_quantizer(PerChannel) or (problem := quantizers.problem_with(PerChannel)):
        reason = "" if not quantizers.is_weight_quantizer(PerChannel) else f" ({problem.split(chr(10))[0]})"
        return Verdict("PerChannel", "wrong", f"Brevitas cannot build this quantizer{reason}. Derive it from Binary.")
    mine, course = (_convolution(quantizer) for quantizer in (PerChannel, quantizers.BinaryWeight))
    scales, magnitudes = weights.scale(mine).flatten(), mine.weight.detach().abs().mean((1, 2, 3))
    if len(scales) == 1:
        return Verdict("PerChannel", "wrong", "The quantizer has one scale for the whole layer.")
    if scales.shape != magnitudes.shape or not torch.allclose(scales, magnitudes, rtol=1e-3):
        return Verdict("PerChannel", "wrong", "The scales are not the mean magnitudes of the channels.")
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    norm = torch.nn.BatchNorm2d(4)
    difference = (norm(mine(images)) - norm(course(images))).abs().max().item()
    text = f"There are {len(scales)} scales, and after the BatchNorm the outputs differ by at most {difference:.4f}."
    return Verdict("PerChannel", "solved", f"{text} The BatchNorm rescales each channel anyway.")


@exercise(
    blank="""
        weight_bytes = None
        norm_bytes = None
    """,
    hint="`weights.report(net)` shows the number of weights per layer. How many bits does a byte have? The number of "
    "channels of a BatchNorm `norm` is `norm.num_features`.",
    solution="""
        layers = weights.quantized_layers(net).values()
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        weight_bytes = sum(layer.weight.numel() for layer in layers) / 8
        norm_bytes = sum(norm.num_features for norm in norms) * 4 * 4
    """,
    explanation="The weights and the BatchNorms together need 72.6 kB. The remaining bytes are seven scales and a "
    "counter of batches in each BatchNorm. In a smaller net, the BatchNorms have a larger share of the size.",
    wrong=[
        ("weight_bytes = 499760\nnorm_bytes = 634 * 4", "right for 8-bit weights."),
        ("weight_bytes = 4 * 499760\nnorm_bytes = 634 * 4", "a float for each latent weight."),
        ("weight_bytes = 499760 / 8\nnorm_bytes = 634 * 2 * 4", "in eval mode a BatchNorm also needs"),
    ],
)
def q6(weight_bytes, norm_bytes, net):
    """*Compute.* In the table of the complete run, the binary net has 72.7 kB. Where do these come from? How many bytes
    do all weights of `net` need with one bit per weight? How many bytes do the BatchNorms need? A BatchNorm has four
    32-bit floats per channel: weight, bias, running mean and running variance.
    """
    count = sum(layer.weight.numel() for layer in weights.quantized_layers(net).values())
    channels = sum(module.num_features for module in net.modules() if isinstance(module, _BatchNorm))
    weight_mistakes = [
        (count, "That is one byte per weight, which is right for 8-bit weights."),
        (count * 4, "That is what PyTorch stores: a float for each latent weight."),
    ]
    norm_mistakes = [
        (
            channels * 8,
            "That is only weight and bias; in eval mode a BatchNorm also needs the running mean and variance.",
        ),
        (channels * 4, "That is the number of floats; each float has four bytes."),
    ]
    return [
        number("weight_bytes", weight_bytes, count / 8, mistakes=weight_mistakes),
        number("norm_bytes", norm_bytes, channels * 16, mistakes=norm_mistakes),
    ]


@exercise(
    solution="""
        from qathelpers.training import Muon


        def muon(parameters):
            return Muon(p for p in parameters if p.ndim > 1)


        for factor in (1, 100):
            for title, optimizer in {"Adam": adam, "Muon": muon}.items():
                rate = flip_rates(f"{title}, x {factor}", optimizer, factor=factor).mean()
                print(f"signs flipped per step: {rate:.3%}")
    """,
    explanation="""
        With both factors, the net starts with the same signs. But a step of Adam changes a latent weight by about the
        learning rate, whatever the size of the weight. At 100 times the distance from the threshold, hardly any sign
        flips, and the net hardly learns. No error is raised. Muon first sets the norm of the weights to a fixed value,
        so the factor makes no difference with Muon.
    """,
)
def q7():
    """*Break it.* Multiply all latent weights by 100 before training, with `flip_rates("x 100", adam, factor=100)`. How
    well does the net learn? Try the same with the course's optimizer, Muon.
    """


def _convolution(quantizer: type) -> torch.nn.Module:
    """Return a convolution with four output channels; its weights are the same for every quantizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = qnn.QuantConv2d(3, 4, 3, bias=False, weight_quant=quantizer)
    with torch.no_grad():
        layer.weight.mul_(torch.arange(1.0, 5).view(4, 1, 1, 1))  # channels of different magnitudes
    return layer
