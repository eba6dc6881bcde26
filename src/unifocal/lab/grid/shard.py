"""The grid in equal parts, each of which may be started anywhere and at any time, also twice."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from unifocal.lab.errors import LabError

Item = TypeVar("Item")


def part_of(items: Sequence[Item], shard: str | None, kind: Callable[[Item], str] = lambda item: "") -> list[Item]:
    """The i-th of n parts for "i/n", in the order of the items; all for None.

    They are dealt out one by one, kind by kind, so that sizes differ by one at most, and so do the shares of each kind.
    """
    if shard is None:
        return list(items)
    number, parts = (int(word) for word in shard.split("/"))
    if not 1 <= number <= parts:
        raise LabError(f"expected --shard i/n with i from 1 to n; got {shard}.")
    dealt = sorted(range(len(items)), key=lambda n: kind(items[n]))
    return [items[n] for n in sorted(dealt[number - 1 :: parts])]
