"""The grid in equal parts, each of which may be started anywhere and at any time, also twice."""

from collections.abc import Sequence
from typing import TypeVar

from unifocal.lab.errors import LabError

Item = TypeVar("Item")


def part_of(items: Sequence[Item], shard: str | None) -> list[Item]:
    """The i-th of n parts for "i/n", dealt out one by one so that sizes differ by one at most; all for None."""
    if shard is None:
        return list(items)
    number, parts = (int(word) for word in shard.split("/"))
    if not 1 <= number <= parts:
        raise LabError(f"expected --shard i/n with i from 1 to n; got {shard}.")
    return list(items)[number - 1 :: parts]
