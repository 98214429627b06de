"""Features of very many images: a pass over folders and shards, by one process or several."""

import csv
import hashlib
import heapq
import io
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hvf_core.artifact import space_needed, whole_file
from hvf_core.lock import alone_in
from hvf_core.problem import Problem, naming
from index.encoders.load import BATCH
from index.images import open_image
from offline_train.data.features import refuse_spoilt
from offline_train.data.images import Entry, of_one_id
from offline_train.features.cache import BLOCK, FeatureCache, Feed
from offline_train.features.shards import entries

Prepared = tuple[str, list[Tensor | None] | None]
SAMPLE = 64
"""Images from all over that are looked at first."""
_JUDGED = 4096


def parts_of(out: Path, n: int) -> list[Path]:
    """Where each of n processes keeps its part of a table until `finish` makes one of them."""
    return [out.with_name(f".{out.name}.parts") / str(rank) for rank in range(n)]


@contextmanager
def alone_at(out: Path) -> Iterator[None]:
    """Keeps others from making the same table, whose parts are gone when the block ends.

    Raises:
        Problem: somebody makes it, or the disk is full.
    """
    folder = parts_of(out, 1)[0].parent
    with space_needed(out):
        folder.mkdir(parents=True, exist_ok=True)
    with alone_in(
        folder, f"'{out}' is being made by another program: wait for it, or name another --out"
    ):
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Survey:
    """How many images there are, and some from all over."""

    n: int
    sample: Sequence[Entry]


def survey(places: Sequence[Path]) -> Survey:
    """Goes through the names of all images, and opens none.

    Raises:
        Problem: there is none, two have one id, or as `entries` does.
    """
    # Others each time: where an interrupted pass goes on, those of before are known.
    rng, digests, n = np.random.default_rng(), bytearray(), 0
    sample: list[Entry] = []
    for n, entry in enumerate(entries(places), 1):
        digests += _digest(entry)
        if len(sample) < SAMPLE:
            sample.append(entry)
        elif (place := int(rng.integers(n))) < SAMPLE:
            sample[place] = entry
    if not n:
        raise Problem(f"there is no image in {', '.join(map(str, places))}: give others")
    known, counts = np.unique(np.frombuffer(digests, np.uint64), return_counts=True)
    if len(known) < n:
        twice = known[counts > 1][0].tobytes()
        one, other = islice((e for e in entries(places) if _digest(e) == twice), 2)
        raise of_one_id(one.id, one.name, other.name)
    return Survey(n, sample)


def _digest(entry: Entry) -> bytes:
    return hashlib.blake2b(entry.id.encode(), digest_size=8).digest()


def look(sample: Sequence[Entry], caches: Sequence[FeatureCache]) -> int:
    """Has encoders see a sample, and refuses what is nearly the same; how many were new to them.

    What cannot be read is passed over: the pass over all images comes to it.
    """
    feed, seen, n_new = Feed(caches), dict[str, None](), 0
    for entry in sample:
        try:
            content, made = _prepared(entry, feed)
        except Problem:
            continue
        seen[content] = None
        if made is not None:
            feed.take(content, made)
            n_new += 1
    feed.write()
    refuse_spoilt(caches, list(seen))
    return n_new


def encode(
    places: Sequence[Path],
    caches: Sequence[FeatureCache],
    part: Path,
    share: tuple[int, int],
    skip_broken: bool,
    n_threads: int = 1,
    progress: Callable[[int], None] = lambda n: None,
) -> None:
    """Encodes a process's share of the images, some hundred and then those of the next process.

    In memory are an image for each thread, two batches of what encoders take, and a block of what
    they gave. What is in the cache is read, as that is how it is known, and not seen again.

    Args:
        part: table of what was seen, and what not, of this process; see `finish`.
        share: the number of this process, and how many there are.
        n_threads: that read and open images.
        progress: told how many images of its own are done.

    Raises:
        Problem: an image cannot be read, and is not to be skipped; what came before it is kept.
    """
    feed, n = Feed(caches), 0
    own = (
        (number, entry)
        for number, entry in enumerate(entries(places))
        if number // BLOCK % share[1] == share[0]
    )
    with naming(part), part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        for (number, entry), opened in _ahead(own, feed, n_threads):
            try:
                (content, made), said = opened.result(), ""
            except Problem as problem:
                if not skip_broken:
                    feed.write()
                    raise Problem(f"{problem}; or pass over such ones with --skip-broken") from None
                content, made, said = "", None, str(problem)
            if made is not None:
                feed.take(content, made)
            rows.writerow(
                [number, entry.id, entry.file.absolute() if entry.is_alone else None, content, said]
            )
            n += 1
            if n % BLOCK == 0:
                progress(n)
        feed.write()
        progress(n)


def _ahead(
    own: Iterator[tuple[int, Entry]], feed: Feed, n_threads: int
) -> Iterator[tuple[tuple[int, Entry], Future[Prepared]]]:
    """Images in their order, of which the next ones are opened meanwhile: JPEGs take their time."""
    pool, waiting = ThreadPoolExecutor(n_threads), deque[Any]()
    try:
        for one in own:
            waiting.append((one, pool.submit(_prepared, one[1], feed)))
            if len(waiting) > BATCH:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(cancel_futures=True)


def _prepared(entry: Entry, feed: Feed) -> Prepared:
    """An image's content, and what encoders take of it if one has to see it."""
    data = entry.read()
    content = hashlib.sha256(data).hexdigest()

    def image() -> NDArray[np.uint8]:
        return np.array(open_image(io.BytesIO(data), entry.name))

    return content, feed.prepare(content, image)


def finish(out: Path, parts: Sequence[Path], caches: Sequence[FeatureCache]) -> tuple[int, int]:
    """Makes one table of the parts, and a list of what could not be read, `NAME-broken.txt`.

    Returns:
        How many images have features, and how many could not be read.

    Raises:
        Problem: nearly all embeddings of an encoder are the same.
    """
    n, n_broken, judged = 0, 0, list[str]()
    broken = out.with_name(f"{out.stem}-broken.txt")
    with ExitStack() as stack:
        readers = [_rows(stack.enter_context(p.open(encoding="utf-8", newline=""))) for p in parts]
        table = stack.enter_context(whole_file(out)).open("w", encoding="utf-8", newline="")
        said = stack.enter_context(whole_file(broken)).open("w", encoding="utf-8")
        with table, said:
            rows = csv.writer(table)
            rows.writerow(["id", "path", "sha256"])
            for _, id_, path, content, why in heapq.merge(*readers, key=lambda row: int(row[0])):
                if why:
                    said.write(f"{why}\n")
                    n_broken += 1
                    continue
                rows.writerow([id_, path, content])
                n += 1
                if len(judged) < _JUDGED:
                    judged.append(content)
                elif (place := int(content[:12], 16) % n) < _JUDGED:
                    judged[place] = content
        refuse_spoilt(caches, list(dict.fromkeys(judged)))
    if not n_broken:
        broken.unlink()
    for part in parts:
        part.unlink()
    return n, n_broken


def _rows(file: io.TextIOWrapper) -> Iterator[list[str]]:
    return iter(csv.reader(file))
