"""A check of tensors."""

import torch

from .errors import CourseError


def check_values(title: str, value: object) -> None:
    """Check that a tensor stores each of its values.

    Raises:
        CourseError: If it is sparse, or stores no values at all. Objects that are not tensors are accepted.
    """
    if isinstance(value, torch.Tensor) and (value.is_meta or value.layout != torch.strided):
        kind = "is on the device meta, which stores no values" if value.is_meta else "is sparse"
        raise CourseError(f"{title} {kind}: make it an ordinary tensor, on a device such as cpu.")
