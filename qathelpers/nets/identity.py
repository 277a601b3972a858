"""What a net is by content, whatever its names: layers, shapes, quantizer settings and the reader's own code."""

import hashlib
import inspect
import json
from collections.abc import Iterator

import torch
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from torch import nn

# Code of these packages is known by its name; other code is known by its source.
PACKAGES = ("torch", "torchvision", "brevitas", "qathelpers")
# Settings that tie a Brevitas quantizer to the layer it belongs to.
REFERENCES = {"module", "proxy_module", "tracked_parameter_list"}
# Attributes that are no part of the structure: the mode of a net, and the classes of the data that it was trained on.
STATE = {"training", "class_names"}


def structure_digest(net: nn.Module) -> str:
    """Return a SHA-256 of the structure of a net.

    It covers the types, settings and shapes of all modules, the settings of all quantizers, and the source of classes
    and functions that do not come from a package. It does not cover weights, which change during a training, or the
    names of quantizers and nets.
    """
    lines = json.dumps(list(_describe(net)), sort_keys=True)
    return hashlib.sha256(lines.encode()).hexdigest()


def _describe(net: nn.Module) -> Iterator[list]:
    inside = ()  # of a quantizer, which is described by its settings instead of by its modules
    for name, module in net.named_modules():
        if inside and name.startswith(inside):
            continue
        inside = ()
        if isinstance(module, QuantProxyFromInjector):
            inside = (f"{name}.",)
            yield [name, _quantizer_settings(module)]
        else:
            yield [name, _code(type(module)), _own_forward(module), module.extra_repr(), _settings(module)]
            yield [name, [[key, list(p.shape), p.requires_grad] for key, p in module.named_parameters(recurse=False)]]
            yield [name, [[key, list(b.shape)] for key, b in module.named_buffers(recurse=False)]]


def _quantizer_settings(proxy: QuantProxyFromInjector) -> dict:
    """Return the settings from which Brevitas assembled a quantizer, by name."""
    injector = proxy.quant_injector
    if injector is None or not proxy.is_quant_enabled:
        return {}
    names = sorted(set(injector.__dependencies__) - REFERENCES)
    return {name: _plain(_setting(injector, name)) for name in names}


def _setting(injector: type, name: str) -> object:
    """Return a setting of a quantizer: a value, or the class or function that Brevitas computes it with."""
    _, spec, needs, _ = injector.__dependencies__[name]
    return spec if needs or isinstance(spec, type) or inspect.isfunction(spec) else getattr(injector, name)


def _settings(module: nn.Module) -> dict:
    """Return the plain attributes of a module, such as the stride of a convolution."""
    public = {key: value for key, value in vars(module).items() if not key.startswith("_") and key not in STATE}
    return {key: _plain(value) for key, value in public.items() if _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | torch.dtype)


def _plain(value: object) -> object:
    """Return a value as something that JSON can hold, the same in every process."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return str(value)  # an enumeration of Brevitas equals its text
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if callable(value):
        return _code(value)
    return str(value) if isinstance(value, torch.dtype | torch.device) else type(value).__qualname__


def _own_forward(module: nn.Module) -> str:
    """Return the code of a `forward` that was replaced on this module alone, or an empty string."""
    return _code(vars(module)["forward"]) if "forward" in vars(module) else ""


def _code(thing: object) -> str:
    """Return what identifies a class or a function: the name of packaged code, the source of other code."""
    name = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    if name.split(".")[0] in PACKAGES:
        return name
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # written in C, or typed into an interpreter that keeps no source
        code = getattr(thing, "__code__", None)
        return f"{name} {code.co_code.hex()} {code.co_consts!r}" if code else name
