"""What an engine is asked for, apart from the voxels."""

from typing import NamedTuple


class Form(NamedTuple):
    """What does not vary from voxel to voxel: how the channels are read, and which sums are wanted."""

    activation: str  # "softmax", "sigmoid" or "none"
    wanted: tuple[str, ...]  # of "tp", "fp", "fn", "tn", "ce", "rest", each at most once
    ignore_index: int | None
    clip: bool
