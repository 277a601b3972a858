"""The exercises of notebook 00, start here."""

from .exercise import exercise
from .verdicts import number, sequence


@exercise(
    blank="""
    float_bytes = None
    ternary_bytes = None
    """,
    hint="A byte has eight bits, so it can hold 256 different values. How many bytes does a 32-bit float take? How "
    "many bytes do five ternary weights take?",
    solution="""
    float_bytes = 450 * 32 / 8
    ternary_bytes = 450 / 5
    """,
    explanation="A float takes 4 bytes. Five ternary weights have 3 x 3 x 3 x 3 x 3 = 243 combinations, which fit into "
    "the 256 values of a byte. That is 8 / 5 = 1.6 bits per weight. Notebook 07 packs weights in this way.",
    wrong=[
        ("float_bytes = 450 * 32\nternary_bytes = 450 * 5", "the number of bits"),
        ("float_bytes = 450 * 4\nternary_bytes = 450 * 2 / 8", "two bits per weight"),
    ],
)
def q1(float_bytes, ternary_bytes):
    """*On paper.* How many *bytes* do the 450 weights of the first layer need as 32-bit floats? How many bytes do they
    need if five ternary weights (3 x 3 x 3 x 3 x 3 = 243 combinations) share one byte?
    """
    return [
        number(
            "float_bytes", float_bytes, 450 * 4, mistakes=[(450 * 32, "That is the number of bits; a byte has 8 bits.")]
        ),
        number(
            "ternary_bytes",
            ternary_bytes,
            450 / 5,
            mistakes=[
                (450 * 2 / 8, "That is two bits per weight; five weights fit into 8 bits."),
                (450 * 5, "Five weights share one byte, so there are fewer bytes than weights."),
            ],
        ),
    ]


@exercise(
    blank="integers = None",
    hint="Build the net as above, but with another scheme. Which function showed the integers of the ternary net?",
    solution="""
    binary_net = build("BinaryNN", arch="lenet")
    integers = weights.integers(weights.first_layer(binary_net)).unique()
    """,
    explanation="A binary weight is never zero: the net computes with a sign times the scale. On disk, each sign is "
    "stored as one bit, 0 or 1.",
    wrong=[
        ("integers = weights.integers(first_layer).unique()", "ternary net's integers"),
        ("integers = [0, 1]", "computes with signs"),
    ],
)
def q2(integers):
    """*Write it.* Build a `"BinaryNN"` with the same architecture. Which integers stand for the levels of its first
    layer? Compute these integers with the functions of this notebook, and assign them to `integers`.
    """
    mistakes = [
        ((-1, 0, 1), "These are the ternary net's integers; a binary net has no zero."),
        ((0, 1), "0 and 1 are the bits that are stored on disk; the net computes with signs."),
    ]
    return sequence("integers", integers, [-1, 1], mistakes=mistakes)


@exercise(
    blank="share = None",
    hint="If a byte stores n combinations, it uses n of its 256 values. How many combinations do five ternary weights "
    "have? How many do four ternary weights have, if each is stored with two bits?",
    solution="share = 3**5 / 256",
    explanation="Five weights per byte leave 13 of the 256 values unused. With two bits per weight, a byte would hold "
    "only four weights, and only 81 of its values would be used.",
    wrong=[("share = 3**4 / 256", "four weights"), ("share = 1.58 / 8", "bits"), ("share = 5 / 8", "too small")],
)
def q3(share):
    """*On paper.* Why do we store five weights per byte? Compute the share of a byte's 256 values that is used when the
    byte holds five ternary weights.
    """
    mistakes = [
        (3**4 / 256, "That is the share for four weights with two bits each."),
        (1.58 / 8, "Count the values of the byte, not its bits."),
    ]
    return number("share", share, 243 / 256, mistakes=mistakes)


@exercise(
    hint="A learning rate of 20 moves each latent weight by many times its own size in a single step.",
    solution="""
    from qathelpers import Recipe

    broken = build("TernaryNN", arch="lenet")
    fit(broken, dataset.take(train=5000, test=1000), epochs=3, recipe=Recipe(lr=20.0))
    weights.report(broken)
    """,
    explanation="The net learns much less, or nothing at all. Each step is now larger than the weights themselves, so "
    "it overwrites what the net learned in earlier steps. The latent weights end at the bound where the optimizer "
    "clips them, far from the thresholds, so the share in the column *zeros* falls. No error is raised; only the "
    "numbers show that something is wrong.",
)
def q4():
    """*Break it.* Train the ternary net again with `recipe=Recipe(lr=20.0)` (`from qathelpers import Recipe`). What
    happens to the loss, and what does the column *zeros* of `weights.report` show?
    """
