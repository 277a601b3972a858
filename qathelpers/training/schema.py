"""What the config of a run and the header of a checkpoint may contain: the types and ranges of all values.

Files can be edited by hand, and can come from anywhere. They are checked here before any of their values is used. A
config may lack any key, and may have others than these.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from ..common.errors import MAX_SEED
from ..data.dataset import NAME

HUGE = 2**40  # of counts that have no limit of their own
MAX_EPOCHS = 1_000_000  # more rows than a history could have
MAX_TEXT = 2000  # characters
MAX_WEIGHTS = 2**31  # of one layer
HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Rule:
    """What a value has to be: in words, and as a function."""

    words: str
    holds: Callable[[object], bool]

    def or_none(self) -> "Rule":
        """Return a rule that also accepts None."""
        return Rule(f"{self.words}, or null", lambda value: value is None or self.holds(value))


def whole(lowest: int, highest: int = HUGE) -> Rule:
    """Return the rule for whole numbers from `lowest` to `highest`."""
    return Rule(f"a whole number from {lowest:,} to {highest:,}", lambda value: is_whole(value, lowest, highest))


def number(lowest: float = -math.inf, highest: float = math.inf) -> Rule:
    """Return the rule for numbers from `lowest` to `highest`; a number without limits may be NaN."""
    limits = "" if lowest == -math.inf else f" from {lowest:g} to {highest:g}"
    return Rule(f"a number{limits}", lambda value: is_number(value) and (not limits or lowest <= value <= highest))


def is_whole(value: object, lowest: int, highest: int = HUGE) -> bool:
    """Return whether `value` is a whole number from `lowest` to `highest`."""
    return type(value) is int and lowest <= value <= highest


def is_number(value: object) -> bool:
    """Return whether `value` is a number; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    # JSON can contain halves of characters (lone surrogates), which cannot be written to a file or a terminal.
    return isinstance(value, str) and len(value) <= MAX_TEXT and not HALF_A_CHARACTER.search(value)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _is_dict_of(kinds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(kinds, value.values()))


def _is_shape(value: object) -> bool:
    is_list = isinstance(value, list) and len(value) <= 8
    return is_list and all(is_whole(size, 1, MAX_WEIGHTS) for size in value) and math.prod(value) <= MAX_WEIGHTS


TEXT = Rule("a text", _is_text)
FILE_NAME = Rule("a name of up to 80 letters, digits, spaces or . + - _", _is_name)

CONFIG = {
    "name": FILE_NAME,
    "arch": FILE_NAME,
    "bits": TEXT,
    "weights": whole(0),
    "kB": number(0, HUGE).or_none(),
    "init_seed": whole(0, MAX_SEED).or_none(),
    "classes": whole(2, 100_000).or_none(),
    "image_size": whole(1, 8192).or_none(),
    "channels": whole(1, 3).or_none(),
    "net_sha256": TEXT,
    "data": FILE_NAME,
    "data_sha256": TEXT,
    "class_names": Rule("a list of texts", _are_texts),
    "train_images": whole(0),
    "test_images": whole(0),
    "evaluated_on": Rule('"test" or "validation"', lambda value: value in ("test", "validation")),
    "epochs": whole(1, MAX_EPOCHS),
    "seed": whole(0, MAX_SEED),
    "recipe": Rule(
        "a set of numbers, texts and switches", _is_dict_of(lambda value: _is_text(value) or isinstance(value, Real))
    ),
    "processes": whole(1, 1_000_000),
    "device": TEXT,
    "hardware": TEXT,
    "precision": TEXT,
    "evaluation": TEXT,
    "versions": Rule("a set of texts", _is_dict_of(_is_text)),
    "date": TEXT,
    "test_loss": number(),
    "test_acc": number(0, 1),
}

# Of each packed layer in the header of a checkpoint; see `packing.unpack`.
PACKED = {
    "shape": Rule(f"at most 8 whole numbers of at least 1, whose product is at most {MAX_WEIGHTS:,}", _is_shape),
    "lowest": whole(-MAX_WEIGHTS, MAX_WEIGHTS),
    "step": whole(1, MAX_WEIGHTS),
    "levels": whole(2, 256),
}


def problem_with(config: object) -> str:
    """Return which value of a config is wrong, and what it should be; return an empty string if all are right."""
    if not isinstance(config, dict):
        return f"is a {type(config).__name__}, not a dict"
    return _problem(config, CONFIG)


def problem_with_packed(layers: object) -> str:
    """Return what is wrong in the description of the packed layers of a checkpoint, or an empty string."""
    if not isinstance(layers, dict):
        return f"is a {type(layers).__name__}, not a dict"
    for name, layer in layers.items():
        if not isinstance(layer, dict) or layer.keys() != PACKED.keys():
            return f"does not describe {name!r} by {', '.join(PACKED)}"
        if problem := _problem(layer, PACKED):
            return f"of {name!r} {problem}"
    return ""


def _problem(values: dict, rules: dict[str, Rule]) -> str:
    for key, rule in rules.items():
        if key in values and not rule.holds(values[key]):
            return f"has {key} {_short(values[key])}, which should be {rule.words}"
    return ""


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}..."
