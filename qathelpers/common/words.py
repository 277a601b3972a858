"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 epoch" or "3 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
