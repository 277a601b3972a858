"""The exercises of notebook 09, a net computed with integers alone."""

import math

from .exercise import exercise
from .verdicts import function, number, prediction


@exercise(
    blank="""
        factor = None
        level = None
    """,
    hint="""
        The real output is $s_x s_w \\cdot 2 \\cdot S$. Divide this output by $s_y$ to express it in levels. The number
        that now stands in front of $S$ is the real factor. A right shift alone rounds down.
    """,
    solution="""
        factor = 1 / 8 * 1 / 64 * 2 / (1 / 4) * 2**10
        level = (300 * 16 + 2**9) >> 10
    """,
    explanation="""
        The real factor is 1/64, so $M = 16$. The real result is 4.69 levels, and the integer computation returns 5: the
        half unit $2^9$ turns rounding down into rounding to nearest.
    """,
    wrong=[
        ("factor = 8\nlevel = 4", "BatchNorm's factor 2 is missing"),
        ("factor = 1 / 64\nlevel = 5", "a whole number of"),
        ("factor = 16\nlevel = 4", "rounds down"),
    ],
)
def q1(factor, level):
    r"""*On paper.* $s_x = \frac18$, $s_w = \frac1{64}$, $s_y = \frac14$; the BatchNorm after the layer doubles its
    input and adds nothing. What is $M$ for $k = 10$? Which level does the sum $S = 300$ become?
    """
    return [
        number(
            "factor",
            factor,
            16,
            mistakes=[
                (8, "The BatchNorm's factor 2 is missing."),
                (1 / 64, "That is the real factor. M is a whole number of units of 1/1024."),
                (1, "Divide by s_y: the result is counted in steps of 1/4."),
            ],
        ),
        number(
            "level",
            level,
            5,
            mistakes=[
                (4, "A shift rounds down: add half a unit before it."),
                (300 / 64, "A level is an integer."),
            ],
        ),
    ]


def _integer_factor(real: float, bits: int) -> tuple[int, int]:
    shift = 0
    while round(real * 2 ** (shift + 1)) < 2 ** (bits - 1):
        shift += 1
    return round(real * 2**shift), shift


def _cut_off(real: float, bits: int) -> tuple[int, int]:
    _, shift = _integer_factor(real, bits)
    return int(real * 2**shift), shift


@exercise(
    blank="""
        def integer_factor(real, bits):
            return None
    """,
    hint="""
        Start with k = 0 and increase k as long as the next M still fits. With one bit for the sign, the largest M is
        2 ** (bits - 1) - 1. Test 0.9999 with 8 bits: M must not be rounded up to 128.
    """,
    solution="""
        def integer_factor(real, bits):
            shift = 0
            while round(real * 2 ** (shift + 1)) < 2 ** (bits - 1):
                shift += 1
            return round(real * 2**shift), shift
    """,
    explanation="""
        Each factor gets a shift of its own, so that M always uses all of its bits. M and its shift are in effect a
        floating-point number, but they need no floating-point unit. Runtimes do the same (`QuantizeMultiplier` in
        LiteRT). The course's net has one shift per layer, which is simpler, but leaves fewer bits of M to the channels
        with small factors.
    """,
    wrong=[
        (
            """
def integer_factor(real, bits):
    shift = bits - 1
    return round(real * 2**shift), shift
""",
            "as large as M allows",
        ),
        (
            """
def integer_factor(real, bits):
    shift = 0
    while round(real * 2 ** (shift + 1)) < 2**bits:
        shift += 1
    return round(real * 2**shift), shift
""",
            "needs one of the bits",
        ),
        (
            """
def integer_factor(real, bits):
    shift = 0
    while round(real * 2 ** (shift + 1)) < 2 ** (bits - 1):
        shift += 1
    return int(real * 2**shift), shift
""",
            "cuts off",
        ),
    ],
)
def q2(integer_factor):
    """*Write it.* Write `integer_factor(real, bits)` for a real factor above 0. It returns M and k such that M / 2 ** k
    is as close to `real` as possible, where M is a signed integer of `bits` bits, rounded to nearest. `real` is less
    than 2 ** (bits - 1).
    """
    return function(
        "integer_factor",
        integer_factor,
        _integer_factor,
        [(0.0123, 8), (0.3, 8), (1.7, 8), (0.9999, 8), (0.000321, 16), (5.0, 16)],
        mistakes=[
            (lambda real, bits: (round(real * 2 ** (bits - 1)), bits - 1), "k should be as large as M allows."),
            (lambda real, bits: _integer_factor(real, bits + 1), "The sign needs one of the bits."),
            (_cut_off, "int() cuts off the fraction; round() rounds to nearest."),
        ],
    )


@exercise(
    blank="""
        total = None
        padding = None
    """,
    hint="A level q stands for the real number s (q - 5). Which level stands for 0? For `total`, subtract first.",
    solution="""
        total = (3 - 5) * 2 + (5 - 5) * -1 + (9 - 5) * 4
        padding = 5
    """,
    explanation="""
        A chip does not subtract first. It computes 3 x 2 - 5 x 1 + 9 x 4 = 37, and then subtracts 5 x (2 - 1 + 4) = 25.
        The 25 is the same for every patch, so it becomes part of the offset. This is only correct if the padding also
        has the level 5. With the level 0, every padded pixel would stand for -5 s, the smallest possible value.
    """,
    wrong=[
        ("total = 37\npadding = 0", "without the zero point"),
        ("total = 12\npadding = 0", "stands for -5 s"),
        ("total = 32\npadding = 5", "5 times the sum of the weights"),
    ],
)
def q3(total, padding):
    """*On paper.* The levels under a filter are 3, 5 and 9, with the zero point 5; the weights are 2, -1 and 4. Which
    sum of products, in units of s_x s_w, does the layer need? And which level must the padding have?
    """
    return [
        number(
            "total",
            total,
            12,
            mistakes=[
                (37, "That is the sum without the zero point."),
                (32, "Subtract 5 times the sum of the weights, not 5."),
            ],
        ),
        number("padding", padding, 5, mistakes=[(0, "The level 0 stands for -5 s here, not for a real zero.")]),
    ]


@exercise(
    blank="bits = None",
    hint="""
        Multiply the number of products by the largest level and the largest weight. How many bits does the result need,
        and which bit is still missing?
    """,
    solution="""
        largest = 1368 * 15 * 7
        bits = largest.bit_length() + 1
    """,
    explanation="""
        1,368 x 15 x 7 = 143,640, which needs 18 bits, and the sign needs one. `blocks.2.refine.1` has the widest sums
        of the net. Adding up bit widths (11 + 4 + 3 + 1) gives the same result here, but in general only an upper
        bound.
    """,
    wrong=[
        ("bits = 18", "The sum has a sign"),
        ("bits = 17.13", "whole number"),
        ("bits = 8", "one product"),
    ],
)
def q4(bits):
    """*On paper.* A sum has 1,368 products of a level from 0 to 15 and a weight from -7 to 7. How many bits does a
    signed integer need to hold every such sum?
    """
    exact = math.log2(1368 * 15 * 7)
    return number(
        "bits",
        bits,
        math.floor(exact) + 2,
        mistakes=[
            (math.floor(exact) + 1, "The sum has a sign."),
            (17, "17 bits end at 131,071, and the sum has a sign."),
            (exact, "A register has a whole number of bits, and one of them is the sign."),
            (exact + 1, "A register has a whole number of bits."),
            (8, "That is enough for one product."),
        ],
    )


@exercise(
    blank="kept_class = None",
    hint="A wrapped sum is not slightly wrong: it changes by 4,096. But how many of an image's sums wrap?",
    solution="kept_class = 85",
    explanation="""
        Few sums do not fit, but the net computes tens of thousands of sums per image. Each sum that wraps is wrong by
        4,096, which is the whole range of the register. With saturation, the same sums are wrong by less than a
        thousand.
    """,
    wrong=[
        ("kept_class = 99.9", "You predicted 99.9"),
        ("kept_class = 'most'", "A number is expected"),
    ],
)
def q5(kept_class, agreement):
    """*Predict, then run.* All sums of the net are kept in 12 bits and wrap around. For what percentage of the images
    (0 to 100) does the class stay the same?
    """
    return prediction(
        "kept_class",
        kept_class,
        100 * agreement["wrap-around"][12],
        close=0.05,
        lesson="A few sums that jump by 4,096 are enough to change a class.",
    )


def _sign_threshold(gain: float, shift: float) -> tuple[int, int]:
    return (1, math.ceil(-shift / gain)) if gain > 0 else (-1, math.ceil(shift / gain))


@exercise(
    blank="""
        def sign_threshold(gain, shift):
            return None
    """,
    hint="""
        Solve gain x S + shift >= 0 for S. Dividing by a negative number reverses the inequality. Then multiply both
        sides by the direction, and find the smallest integer that satisfies the result.
    """,
    solution="""
        import math


        def sign_threshold(gain, shift):
            direction = 1 if gain > 0 else -1
            return direction, math.ceil(-shift / gain * direction)
    """,
    explanation="""
        With a negative gain, S <= -shift / gain is the same as -S >= shift / gain, so the same comparison works for
        both signs of the gain. Hardware goes one step further: the filter's weights are negated, so that all channels
        use the same comparison.
    """,
    wrong=[
        (
            """
def sign_threshold(gain, shift):
    return 1, math.ceil(-shift / gain)
""",
            "reverses the inequality",
        ),
        (
            """
def sign_threshold(gain, shift):
    direction = 1 if gain > 0 else -1
    return direction, math.floor(-shift / gain * direction)
""",
            "smallest integer",
        ),
    ],
)
def q6(sign_threshold):
    """*Write it.* Write `sign_threshold(gain, shift)`, without a loop over S. For a gain that is not zero, it returns
    two integers, direction and value: the sign of gain x S + shift is +1 exactly when direction x S >= value, for every
    integer S. The sign of 0 is +1.
    """
    return function(
        "sign_threshold",
        sign_threshold,
        _sign_threshold,
        [(0.5, -2.0), (-0.5, 1.0), (-0.25, 1.3), (0.03, 0.7), (-0.03, -0.7)],
        mistakes=[
            (
                lambda gain, shift: (1, math.ceil(-shift / gain)),
                "A negative gain reverses the inequality, so the direction is -1.",
            ),
            (
                lambda gain, shift: (1 if gain > 0 else -1, math.floor(-shift / abs(gain))),
                "The value is the smallest integer that gives +1: round up.",
            ),
        ],
    )


@exercise(
    solution="""
        broken = copy.deepcopy(integers["XnorNN"])
        for name, step in broken.steps.items():
            if name.startswith("blocks.1.") and hasattr(step, "padding"):
                step.pad_value = -1
        found = integer_reference.compare(nets["XnorNN"], broken, few)
        print(found.loc["blocks.0":"blocks.1", "share"].map("{:.2%}".format).to_string())
        same = broken.predict(few.numpy()) == answers["XnorNN"][: len(few)]
        print(f"{same.sum()} of {len(same)} classes are still the same")
    """,
    explanation="""
        A single bit cannot represent a zero: the bit 0 stands for -1 and the bit 1 for +1. If you fill the border of a
        bit array with zeros, you pad with -1. The sums are wrong from `blocks.1.widen.1` on, but only at the border of
        the image. Most classes stay the same, so a test that checks only the accuracy would report a small loss and
        miss the mistake. The remedy is the mask of notebook 07: count only the bits that are inside the image.
    """,
)
def q7():
    """*Break it.* Pad the bits of `XnorNN` with -1 in both convolutions of `blocks.1` (set `pad_value` of these steps
    in a copy). In which layer does the mistake start, what share of the sums is wrong there, and how many classes
    change?
    """
