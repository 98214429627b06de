"""Mutations: what a disk, a network or a person makes of a file, with fixed seeds.

Each is small and on purpose of all kinds, so that some of them reach behind the first check.
"""

import json
import random
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

from hvf_core.problem import Problem

N = 500
"""Mutations of each kind of input."""
ABSURD = (0, -1, 1, 255, 2**31, 2**32 - 1, 2**53, 2**63, 2**64, 10**40, 1e300, -1e300, 0.5)
_ODD = (None, True, "", "\0", "../../etc/passwd", "/etc/passwd", "\ud800", [], {}, "x" * 300)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def mutations(data: bytes, n: int = N, seed: int = 0) -> Iterator[bytes]:
    """The bytes, changed in one to three ways: of JSON, lines too, every second is JSON still."""
    chance = random.Random(seed)
    values = _json_lines(data)
    for _ in range(n):
        changed = data
        if values and chance.random() < 0.5:
            swapped = swapped_in(chance, values)
            changed = b"".join(json.dumps(value).encode() + b"\n" for value in swapped)
        else:
            for _ in range(chance.randint(1, 3)):
                changed = chance.choice(_WAYS)(chance, changed)
        yield changed


def _json_lines(data: bytes) -> list[Any]:
    """The value of the bytes, or of each of their lines; nothing where they are no JSON."""
    for lines in ([data], data.splitlines()):
        with suppress(ValueError):
            return [json.loads(line) for line in lines]
    return []


def _flip(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _leave_out(chance: random.Random, data: bytes) -> bytes:
    start, stop = _span(chance, data)
    return data[:start] + data[stop:]


def _repeat(chance: random.Random, data: bytes) -> bytes:
    start, stop = _span(chance, data)
    return data[:stop] + data[start:stop] * chance.randint(1, 3) + data[stop:]


def _insert(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.randint(1, 20)) + data[at:]


def _blank(chance: random.Random, data: bytes) -> bytes:
    start, stop = _span(chance, data)
    return data[:start] + bytes(stop - start) + data[stop:]


def _absurd(chance: random.Random, data: bytes) -> bytes:
    """Another number where there is one."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return _flip(chance, data)
    start, stop = chance.choice(found).span()
    return data[:start] + str(chance.choice(ABSURD)).encode() + data[stop:]


def _span(chance: random.Random, data: bytes) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.randint(1, 64))


_WAYS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_flip, _cut, _leave_out, _repeat, _insert, _blank, _absurd),
)


def swapped_in(chance: random.Random, value: Any) -> Any:
    """The same with another value somewhere, two that have changed places, or one that is gone."""
    copy = deepcopy(value)
    places = list(_places(copy))
    (holder, key), (other, its) = chance.choice(places), chance.choice(places)
    match chance.randrange(4):
        case 0:
            holder[key] = chance.choice(ABSURD)
        case 1:
            holder[key] = chance.choice(_ODD)
        case 2:
            holder[key], other[its] = deepcopy([other[its], holder[key]])
        case 3:
            del holder[key]
    return copy


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = range(len(value)) if isinstance(value, list) else list(value)
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def is_sentence(problem: Problem) -> bool:
    """Whether a problem is one line that a person can read."""
    text = str(problem)
    return 0 < len(text) < 1000 and "\n" not in text


@contextmanager
def bounded_memory(more_mb: int = 1000) -> Iterator[None]:
    """Lets the process ask for so much memory beyond what it has: then there is a MemoryError."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more_mb * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcomes(read: Callable[[bytes], object], data: bytes, n: int = N, seed: int = 0) -> int:
    """Reads mutations: each gives a result or a sentence. Returns how many gave a result."""
    n_read = 0
    with bounded_memory():
        for changed in mutations(data, n, seed):
            try:
                read(changed)
                n_read += 1
            except Problem as problem:
                if not is_sentence(problem):
                    raise AssertionError(repr(problem)) from problem
    return n_read
