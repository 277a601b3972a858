"""A net whose blocks have widths and bits of their own, and what it costs, part by part."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..analysis import costs
from ..common.errors import CourseError
from ..nets import ARCHITECTURES, SCHEMES, Scheme, packing
from ..nets import quantizers as q
from ..nets.convnet import Block, head

# Bits per weight and per activation, with their quantizers. 1.58 = log2(3) bits are three levels.
WEIGHTS = {"1": q.BinaryWeight, "1.58": q.TernaryWeight, "4": q.Int4Weight, "8": q.Int8Weight, "32": None}
ACTIVATIONS = {
    "1": q.BinaryActivation,
    "2": q.Int2Activation,
    "4": q.Int4Activation,
    "8": q.Int8Activation,
    "32": None,
}
POOLS = (2, 2, 1)  # the factors by which the blocks of `ConvNet` shrink height and width
PATCH, STRIDE = 4, 2  # of its stem


@dataclass(frozen=True)
class Choice:
    """A choice of widths and bits.

    Args:
        widths: Number of channels of each of the three blocks.
        bits: Bits per weight of each block and of the last layer, keys of `WEIGHTS`.
        activation: Bits per activation, a key of `ACTIVATIONS`.
    """

    widths: tuple[int, int, int] = (32, 56, 80)
    bits: tuple[str, str, str, str] = ("1.58", "1.58", "1.58", "1.58")
    activation: str = "32"

    @property
    def name(self) -> str:
        """The name of the scheme, such as "W1-1.58-4-4 A32": the bits of the three blocks and of the last layer."""
        return f"W{'-'.join(self.bits)} A{self.activation}"

    @property
    def arch(self) -> str:
        """The name of the architecture, such as "budget 32-56-80 W1-1.58-4"; bits of blocks belong to it."""
        return f"budget {'-'.join(map(str, self.widths))} W{'-'.join(self.bits[:3])}"

    @property
    def scheme(self) -> Scheme:
        """The scheme; its quantizer of weights is that of the first block."""
        return _scheme(self.name, self.bits[0], self.bits[3], self.activation)

    def register(self) -> None:
        """Add the scheme and the architecture to `SCHEMES` and `ARCHITECTURES`, so that they are known by name.

        Raises:
            CourseError: If there is something else under one of these names.
        """
        weights = tuple(WEIGHTS[bits] for bits in self.bits[:3])
        preset = ARCHITECTURES["convnet"].with_options(widths=self.widths, block_weights=weights)
        for registry, name, entry in ((SCHEMES, self.name, self.scheme), (ARCHITECTURES, self.arch, preset)):
            if registry.get(name, entry) != entry:
                raise CourseError(f"{name!r} already names another entry: delete that one first.")
        SCHEMES[self.name], ARCHITECTURES[self.arch] = self.scheme, preset


@dataclass(frozen=True)
class Costs:
    """What a net costs: kB (1000 bytes) by part, MACs and BOPs per image, and kB for its feature maps."""

    parts: dict[str, float]
    macs: int
    bops: int
    memory: float

    @property
    def kilobytes(self) -> float:
        """The packed size of the whole net."""
        return sum(self.parts.values())


def costs_of(choice: Choice, image: Sequence[int], classes: int) -> Costs:
    """Return what the net of `choice` costs for images of the shape `image`.

    The parts are counted one by one and remembered, because a slider changes only one or two of them.

    Raises:
        CourseError: If the images are too small for the net.
    """
    channels, side = image[0], image[1] // STRIDE
    inputs, parts = _stem_channels(choice.activation, channels), {}
    parts["stem"] = _stem(choice.activation, tuple(image))
    for number, (width, pool) in enumerate(zip(choice.widths, POOLS, strict=True)):
        if side < pool:
            raise CourseError(f"Images of {image[1]} x {image[2]} pixels are too small for this net: use larger ones.")
        key = choice.bits[number], choice.activation, inputs, width, pool, side
        parts[f"block {number + 1}"] = _block(*key)
        inputs, side = width, side // pool
    parts["last layer"] = _head(choice.bits[3], choice.activation, inputs, classes, side)
    layers = [count.layers for _, count in parts.values()]
    calls = [call for _, count in parts.values() for call in count.calls]
    return Costs(
        {name: kilobytes for name, (kilobytes, _) in parts.items()},
        int(sum(table["MACs"].sum() for table in layers)),
        int(sum(table["BOPs"].sum() for table in layers)),
        costs.working_memory(calls),
    )


@functools.cache
def _scheme(name: str, block: str, last: str, activation: str) -> Scheme:
    bits = name.replace(" ", "")
    return Scheme(name, bits, WEIGHTS[block], ACTIVATIONS[activation], WEIGHTS[last])


@functools.cache
def _plain(bits: str, activation: str) -> Scheme:
    return _scheme(f"W{bits} A{activation}", bits, bits, activation)


@functools.cache
def _stem_channels(activation: str, channels: int) -> int:
    return _plain("32", activation).stem(PATCH, STRIDE, channels)[0].channels


@functools.lru_cache(maxsize=1000)
def _stem(activation: str, image: tuple[int, ...]) -> tuple[float, costs.Count]:
    return _counted(_plain("32", activation).stem(PATCH, STRIDE, image[0]), image)


@functools.lru_cache(maxsize=1000)
def _block(bits: str, activation: str, inputs: int, width: int, pool: int, side: int) -> tuple[float, costs.Count]:
    with torch.random.fork_rng(devices=[]):  # a slider must not use up random numbers of the reader
        torch.manual_seed(0)
        block = Block(_plain(bits, activation), inputs, width, pool)
    return _counted(block, (inputs, side, side))


@functools.lru_cache(maxsize=1000)
def _head(bits: str, activation: str, inputs: int, classes: int, side: int) -> tuple[float, costs.Count]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        last = head(_plain(bits, activation), inputs, classes)
    return _counted(last, (inputs, side, side))


def _counted(part: nn.Module, shape: tuple[int, ...]) -> tuple[float, costs.Count]:
    return packing.kilobytes(part), costs.count(part, shape)
