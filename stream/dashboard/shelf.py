"""What a server has to say, of each thing only the newest: pages take from it when they can.

A page that is slow comes late and takes fewer things; nobody queues anything for it.
"""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Item(NamedTuple, Generic[T]):
    """Something that is to be said; `number` tells in which order things were put down."""

    number: int
    kind: str
    said: T


class Shelf(Generic[T]):
    """Keeps the newest of each kind and key.

    Args:
        keeps: how many keys of a kind there may be; the oldest go. Of others there is one.

    Attributes:
        number: of the last item that was put down.
    """

    def __init__(self, keeps: Mapping[str, int]):
        self._keeps, self.number = keeps, 0
        self._items: OrderedDict[tuple[str, Hashable], Item[T]] = OrderedDict()
        self._keys: dict[str, OrderedDict[Hashable, None]] = {}

    def put(self, kind: str, said: T, key: Hashable = None) -> None:
        """Puts something down in place of what was there of its kind and key."""
        self.number += 1
        self._items[kind, key] = Item(self.number, kind, said)
        self._items.move_to_end((kind, key))
        keys = self._keys.setdefault(kind, OrderedDict())
        keys[key] = None
        if len(keys) > self._keeps.get(kind, 1):
            oldest, _ = keys.popitem(last=False)
            del self._items[kind, oldest]

    def has(self, kind: str, key: Hashable) -> bool:
        """Whether something of a kind and key is there."""
        return (kind, key) in self._items

    def since(self, number: int) -> list[Item[T]]:
        """What was put down after an item, in order."""
        newer = []
        for item in reversed(self._items.values()):
            if item.number <= number:
                break
            newer.append(item)
        return newer[::-1]
