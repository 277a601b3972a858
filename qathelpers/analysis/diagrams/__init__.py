"""Drawings of mechanisms: a layer under quantization-aware training, bits in a byte, integer arithmetic."""

from .activations import bit_products, forward_and_gradient, thermometer, w1a1_block
from .binary import flip_rates, flips_per_epoch, latent_paths, sign_and_ste, statistics_gap
from .bits import operations_and_time, packed_bytes, padded_corner, xnor_patch
from .budget import kilobytes_against_width
from .integers import (
    block_in_integers,
    integer_layer,
    multiply_and_shift,
    sign_thresholds,
    where_they_differ,
    wrap_and_saturate,
)
from .layer import layer_under_qat
from .net import mark, residual_net, stem_filters
from .quantizer import integer_dot_product, number_line, one_weight, scale_sharing
from .ternary import Signals, dead_chains, error_and_accuracy, level_changes, three_levels

__all__ = [
    "Signals",
    "bit_products",
    "block_in_integers",
    "dead_chains",
    "error_and_accuracy",
    "flip_rates",
    "flips_per_epoch",
    "forward_and_gradient",
    "integer_dot_product",
    "integer_layer",
    "kilobytes_against_width",
    "latent_paths",
    "layer_under_qat",
    "level_changes",
    "mark",
    "multiply_and_shift",
    "number_line",
    "one_weight",
    "operations_and_time",
    "packed_bytes",
    "padded_corner",
    "residual_net",
    "scale_sharing",
    "sign_and_ste",
    "sign_thresholds",
    "statistics_gap",
    "stem_filters",
    "thermometer",
    "three_levels",
    "w1a1_block",
    "where_they_differ",
    "wrap_and_saturate",
    "xnor_patch",
]
