"""Nets: an architecture, written once, and a scheme that says how its weights and activations are quantized."""

from . import packing, quantizers, weights
from .architectures import ARCHITECTURES, Architecture, NetSpec, architecture, build, spec_of
from .convnet import Block, ConvNet
from .lenet import LeNet
from .recipe import Recipe
from .schemes import FIRST_LAST_SUFFIX, SCHEMES, Scheme
from .stem import DCTStem

__all__ = [
    "ARCHITECTURES",
    "FIRST_LAST_SUFFIX",
    "SCHEMES",
    "Architecture",
    "Block",
    "ConvNet",
    "DCTStem",
    "LeNet",
    "NetSpec",
    "Recipe",
    "Scheme",
    "architecture",
    "build",
    "packing",
    "quantizers",
    "spec_of",
    "weights",
]
