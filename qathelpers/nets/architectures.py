"""Build a net from the name of a scheme and the name of an architecture."""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ..common.errors import MAX_SEED, CourseError, check_type, check_whole, raise_if_of_the_machine
from . import weights
from .convnet import ConvNet
from .lenet import LeNet
from .recipe import Recipe
from .schemes import SCHEMES, Scheme
from .stem import COLOURS, check_channels

ADAM_LR = 0.002  # for nets for which no recipe was tuned
RGB = 3  # channels
FACTORS = (0.01, 16)  # by which a preset can be narrowed and widened


def _parameters(net: Callable[..., nn.Module]) -> list[inspect.Parameter]:
    """Return the parameters of the constructor of a net, without `self`."""
    try:
        return list(inspect.signature(net).parameters.values())
    except (TypeError, ValueError):  # written in C, so nothing is known
        return [inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)]


def _name(net: Callable[..., nn.Module]) -> str:
    return getattr(net, "__name__", repr(net))


@dataclass(frozen=True)
class Architecture:
    """A preset: the class of a net, its options, and the recipe that suits it.

    Args:
        net: Called with a `Scheme` and the options; returns a net. If it has the options `classes`, `image_size` or
            `channels`, `build` sets them.
        options: Keyword arguments of `net`, such as `widths`.
        recipe: The recipe that trains nets of this architecture best.
    """

    net: Callable[..., nn.Module]
    options: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        """Check that `net` accepts a scheme and the options."""
        if not callable(self.net) or isinstance(self.net, nn.Module):
            raise CourseError(
                f"net of an Architecture is {type(self.net).__name__!r}: pass the class of a net, or a function that "
                "takes a Scheme and returns a net."
            )
        check_type("options of an Architecture", self.options, dict, "a dict, such as {'widths': (8, 12, 16)}")
        check_type("recipe of an Architecture", self.recipe, Recipe, "a Recipe")
        first, *others = _parameters(self.net) or [None]
        if first is None:
            raise CourseError(f"{_name(self.net)} takes no arguments: its first argument has to be the Scheme.")
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in (first, *others)):
            return
        known = [parameter.name for parameter in others if parameter.kind is not parameter.VAR_POSITIONAL]
        for option in self.options:
            if option not in known:
                raise CourseError(
                    f"{_name(self.net)} has no option {option!r}: choose one of {', '.join(known) or 'none'}."
                )

    def with_options(self, **options: object) -> "Architecture":
        """Return the same preset with some options changed, such as `widths=(8, 12, 16)`.

        Raises:
            CourseError: If the net has no such option (the message lists them).
        """
        return replace(self, options={**self.options, **options})


ARCHITECTURES = {
    "lenet": Architecture(LeNet, recipe=Recipe(augment=False, label_smoothing=0.0)),
    "convnet": Architecture(ConvNet, {"widths": (48, 96, 152)}, Recipe(progressive_resizing=2 / 3)),
    # 0.77 M weights and 49 M MACs per image. The stem has stride 1 and patches of 2 x 2, so it keeps all information:
    # dropping high frequencies would cost nearly one point of accuracy here. As in airbench94 (K. Jordan, arXiv
    # 2404.00498), the first block, whose feature maps are the largest, has few channels.
    "sharpnet": Architecture(
        ConvNet,
        {"widths": (40, 160, 160), "patch": 2, "stride": 1, "pools": (2, 2, 2)},
        Recipe(progressive_resizing=2 / 3, translate=2),
    ),
}


@dataclass(frozen=True)
class NetSpec:
    """What a net is: its scheme, its architecture, the seed of its initialization, and the recipe that suits it."""

    scheme: Scheme
    arch: str
    seed: int | None
    recipe: Recipe
    classes: int | None = None
    image_size: int | None = None
    channels: int | None = None

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape (channels, height, width) of the images that the net was built for; if unknown, CIFAR-10's."""
        side = self.image_size or 32
        return self.channels or RGB, side, side

    @property
    def name(self) -> str:
        """The scheme's name, such as "TernaryNN"."""
        return self.scheme.name

    @property
    def bits(self) -> str:
        """Bits of weights and activations, such as "W1A1"."""
        return self.scheme.bits


def build(
    name: str | Scheme,
    arch: str = "convnet",
    seed: int = 0,
    *,
    classes: int = 10,
    image_size: int = 32,
    channels: int = RGB,
) -> nn.Module:
    """Return a new net.

    With the same architecture and seed, nets of all schemes start from the same latent weights. Schemes
    with binary activations are the exception: their stem has more channels (`Scheme.stem`), so their first convolution
    has more weights.

    Args:
        name: Name of a scheme of the course, or a `Scheme` of your own.
        arch: Name of an architecture (see `architecture`).
        seed: Seed of the initialization, a whole number of at least 0.
        classes: Number of classes.
        image_size: Height and width of the images in pixels. Only architectures with a fixed image size use it.
        channels: Number of channels of the images, 3 (RGB) or 1 (grey).

    Returns:
        The net; its `NetSpec` is `net.spec`.

    Raises:
        CourseError: If there is no such scheme or architecture (the message lists them), or if an architecture of your
            own lacks an option that it needs here, fails, or does not return a net.
        ValueError: If a number is out of range.
    """
    check_whole("seed", seed, 0, MAX_SEED)
    check_whole("classes", classes, 2)
    check_whole("image_size", image_size, 1)
    check_channels(channels)
    scheme = name if isinstance(name, Scheme) else _choose("net", name, SCHEMES)
    check_type(f"SCHEMES[{name!r}]", scheme, Scheme, "a Scheme")
    if scheme != SCHEMES.get(scheme.name, scheme):
        raise CourseError(f"The course already has a scheme {scheme.name}: give yours another name.")
    chosen = architecture(arch)
    options = chosen.options | _sizes(chosen, classes, image_size, channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _new(chosen, arch, scheme, options)
    recipe = replace(chosen.recipe, **scheme.recipe)
    if recipe.optimizer == "muon" and not weights.scales_follow_weights(net):
        recipe = replace(recipe, optimizer="adam", lr=ADAM_LR)
    net.spec = NetSpec(scheme, arch, seed, recipe, classes, image_size, channels)
    return net


def _new(chosen: Architecture, arch: str, scheme: Scheme, options: dict[str, Any]) -> nn.Module:
    try:
        net = chosen.net(scheme, **options)
    except CourseError:
        raise
    except Exception as error:  # a class of your own can raise anything
        raise_if_of_the_machine(error)
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise CourseError(
            f"{_name(chosen.net)} cannot build {arch} for {scheme.name} ({type(error).__name__}: {reason}): its first "
            f"argument has to be the Scheme, and its options are {options}."
        ) from error
    weights.check_net(net, f"what {_name(chosen.net)} returns", needs_values=False)
    return net


def _sizes(chosen: Architecture, classes: int, image_size: int, channels: int) -> dict[str, int]:
    """Return those of the three options that an architecture has; it must have `classes` unless there are ten.

    It must have `channels` unless the images are RGB.
    """
    accepted = {parameter.name: parameter for parameter in _parameters(chosen.net)}
    if classes != 10 and "classes" not in accepted:
        raise CourseError(
            f"{_name(chosen.net)} has no option classes, so it cannot be built for {classes} classes: add this option."
        )
    sizes = {"classes": classes, "image_size": image_size}
    if _takes_channels(chosen):
        sizes["channels"] = channels
    elif channels != RGB:
        raise CourseError(
            f"{_name(chosen.net)} has no option channels with the default 3, so it cannot be built for images with "
            f"{channels} channel: add this option."
        )
    return {key: value for key, value in sizes.items() if key in accepted}


def _takes_channels(chosen: Architecture) -> bool:
    """Return whether the option `channels` of an architecture is the number of channels of the images.

    If its value is neither 1 nor 3, it is something else, such as the number of channels of a layer.
    """
    parameter = next((parameter for parameter in _parameters(chosen.net) if parameter.name == "channels"), None)
    if parameter is None:
        return False
    value = chosen.options.get("channels", parameter.default)
    return value is parameter.empty or value in tuple(COLOURS)


def spec_of(net: nn.Module) -> NetSpec:
    """Return the `NetSpec` of `net`; that of a net that `build` did not make has the name of the net's class.

    Its recipe uses Adam, which suits every net: Muon rescales weights, which harms nets whose scales do not follow.
    """
    kind = type(net).__name__
    spec = getattr(net, "spec", None)
    if isinstance(spec, NetSpec):  # a net of your own can have something else in this attribute
        return spec
    return NetSpec(Scheme(kind, "unknown"), kind, None, Recipe(optimizer="adam", lr=ADAM_LR))


def architecture(arch: str) -> Architecture:
    """Return the preset called `arch`; "convnet-x1.5" is convnet with 1.5 times the channels, in multiples of 8.

    Raises:
        CourseError: If there is no such architecture (the message lists them), or if it cannot be widened.
    """
    name, _, factor = str(arch).partition("-x")
    chosen = _choose("architecture", name, ARCHITECTURES)
    check_type(f"ARCHITECTURES[{name!r}]", chosen, Architecture, "an Architecture, such as Architecture(MyNet)")
    if name == arch:
        return chosen
    if "widths" not in chosen.options:
        raise CourseError(f"{name} comes in one width only: leave out '-x{factor}', or widen convnet.")
    times = float(factor) if re.fullmatch(r"\d+(\.\d+)?", factor, re.ASCII) else math.nan
    low, high = FACTORS
    if not low <= times <= high:
        raise CourseError(
            f"{arch} is not a valid width: put a number from {low:g} to {high:g} after the x, as in {name}-x1.5."
        )
    try:
        widths = tuple(max(8, 8 * round(width * times / 8)) for width in chosen.options["widths"])
    except TypeError as error:  # an entry of your own, with other widths
        raise CourseError(f"{name} cannot be widened: its widths are not a list of numbers.") from error
    return chosen.with_options(widths=widths)


def _choose(kind: str, name: str, known: dict) -> Any:
    if not isinstance(name, str) or name not in known:
        raise CourseError(f"There is no {kind} {name!r}: choose one of {', '.join(known)}.")
    return known[name]
