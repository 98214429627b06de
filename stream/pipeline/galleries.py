"""What a session does with galleries beside its loop, for which neither it nor a trial waits."""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from decoder.bundle import open_bundle
from hvf_core.problem import Problem, needed
from index.gallery import Gallery, check_space, load_gallery, open_gallery
from stream.pipeline.wire.config import SessionConfig

_NICENESS = 10  # a decoder that wakes up takes the core at once
T = TypeVar("T")


class Aside(threading.Thread):
    """Does one thing after another at low priority; it begins with the first."""

    def __init__(self) -> None:
        super().__init__(daemon=True)  # the end of a session waits for nothing of it
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def begin(self, task: Callable[[], T]) -> Future[T]:
        """Has something done; what it comes to, or raises, is in what is returned."""
        future: Future[T] = Future()

        def do() -> None:
            try:
                future.set_result(task())
            except BaseException as error:  # which is raised where the result is asked for
                future.set_exception(error)

        self._tasks.put(do)
        if not self.is_alive():
            self.start()
        return future

    def run(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            self._tasks.get()()


def usable(path: Path, config: SessionConfig) -> Gallery:
    """A gallery that is whole, and of the space that the session decodes into.

    Raises:
        Problem: it is not.
    """
    gallery = load_gallery(path)
    check_space(gallery, open_bundle(needed(config.bundle)).manifest)
    return gallery


def alike(config: SessionConfig, asked: str) -> str:
    """The images most like one of the session's gallery, as JSON: id, label and cosine of each.

    All of the gallery is looked at, where it is mapped into memory: nothing of it is copied.

    Args:
        asked: how many, and the id, as `5 apple`.

    Raises:
        Problem: that is not what is asked, or there is no such image.
    """
    from index.search.flat import Flat  # FAISS takes its time, and most sessions are not asked

    k, _, id_ = asked.partition(" ")
    if not (k.isdecimal() and int(k) and id_.strip()):
        raise Problem(f"'like {asked}' should say how many images, and like which: `like 5 apple`")
    gallery = open_gallery(needed(config.gallery))
    row = gallery.row_of(id_.strip())
    if row is None:
        raise Problem(f"there is no image '{id_.strip()}' in the gallery '{config.gallery}'")
    rows, cosines = Flat(gallery.embeddings).scores(gallery.embeddings[row]).top_k(int(k) + 1)
    others = [(n, cosine) for n, cosine in zip(rows.tolist(), cosines.tolist(), strict=True)]
    others = [(n, cosine) for n, cosine in others if n != row][: int(k)]
    told = [(gallery.ids[n], gallery.labels[n], cosine) for n, cosine in others]
    return json.dumps(told, ensure_ascii=False)
