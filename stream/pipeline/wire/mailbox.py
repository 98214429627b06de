"""The way from the decoder to the painter: what is newer takes the place of what waits."""

from collections.abc import Callable

import numpy as np
import zmq

from stream.pipeline.wire.bus import Listener, open_socket, send
from stream.pipeline.wire.messages import Embedded, Retrieval


class Outgoing:
    """The decoder's end. It never waits and never fills up, whether or not a painter is there.

    Args:
        endpoint: of the mailbox.
        with_provisional: whether embeddings of provisional answers are wanted as well.
    """

    def __init__(self, endpoint: str, with_provisional: bool):
        self._socket = open_socket(zmq.PUSH, endpoint, bind=False, latest_only=True)
        self.with_provisional = with_provisional

    def offer(self, retrieval: Retrieval, embedding: np.ndarray) -> None:
        """Hands over the embedding, unit-length float32 (dim,), that an answer is made of."""
        if retrieval.answer.provisional and not self.with_provisional:
            return
        message = Embedded(
            about=retrieval.about,
            answer=retrieval.answer,
            top_id=retrieval.ids[0],
            stamps=retrieval.stamps,
            array=embedding,
        )
        send(self._socket, message)

    def close(self) -> None:
        self._socket.close(0)


class Mailbox:
    """The painter's end: holds the newest embedding.

    Answers to overlapping trials do not come in the order of the trials: one that knows less than
    what was taken before, of the same trial or an earlier one, is passed over.

    Args:
        listener: on a PULL socket, latest only.
    """

    def __init__(self, listener: Listener):
        self._listener = listener
        self._held: Embedded | None = None
        self._newest = (0, float("-inf"))  # trial and tmax of what was held or taken last

    @classmethod
    def at(cls, endpoint: str, session: str, tell: Callable[[str], object]) -> "Mailbox":
        """The mailbox that an `Outgoing` of this endpoint reaches; see `Listener`."""
        socket = open_socket(zmq.PULL, endpoint, bind=True, latest_only=True)
        return cls(Listener(socket, session, tell))

    def peek(self, wait_ms: int = 0) -> Embedded | None:
        """The newest embedding that was not taken yet, which stays; None if none comes in time."""
        while isinstance(
            message := self._listener.receive(wait_ms if self._held is None else 0), Embedded
        ):
            known = (message.about.trial, message.answer.tmax_s)
            if known > self._newest:
                self._held, self._newest = message, known
        return self._held

    def take(self, wait_ms: int = 0) -> Embedded | None:
        """The newest embedding, which is taken out; None if none comes in time."""
        taken, self._held = self.peek(wait_ms), None
        return taken

    def close(self) -> None:
        self._listener.close()
