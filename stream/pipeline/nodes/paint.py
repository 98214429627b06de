"""The painting node: paints what was seen, beside the decoder and never in its way.

It runs at low priority, only ever on the newest trial, and a session does without it where it
cannot be. `Easel` is what it does with its mailbox, `painter` what paints.
"""

import os
from collections.abc import Mapping
from typing import Any

import zmq

from stream.pipeline.nodes.easel import Easel, OutOfMemory, Painter
from stream.pipeline.nodes.node import Lifeline, run_node
from stream.pipeline.wire.bus import open_socket, send
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.mailbox import Mailbox
from stream.pipeline.wire.messages import Noted
from stream.pipeline.wire.nodes import PAINT

NICENESS = 10
"""A decoder that wakes up takes the core at once."""
_WAIT_MS = 100
_LAST_WAIT_MS = 300  # for an embedding that may still be on its way when the session ends


def serve(config: SessionConfig, lifeline: Lifeline, painter: Painter) -> None:
    """Paints what comes until it is told to stop, or to finish: then what is in hand and waits.

    Raises:
        OutOfMemory: the memory does not suffice.
    """
    reports = open_socket(zmq.PUSH, config.endpoints.reports, bind=False)

    def say(text: str, facts: Mapping[str, Any] = {}) -> None:
        send(reports, Noted(node=PAINT, text=text, facts=facts))

    easel = Easel(
        config,
        painter,
        Mailbox.at(config.endpoints.embeddings, config.session, say),
        send=lambda message: send(reports, message),
        stopped=lambda: lifeline.command() == "stop",
    )
    lifeline.ready()
    say(painter.about, painter.facts)
    while (command := lifeline.command()) is None:
        easel.paint_next(_WAIT_MS)
        for verb, argument in lifeline.orders():
            easel.obey(verb, argument)
    if command == "finish":
        easel.paint_next(_LAST_WAIT_MS)
    reports.close()


def run(config: SessionConfig, lifeline: Lifeline) -> None:
    """Loads what paints, and serves."""
    from stream.pipeline.nodes.painter import open_painter  # here: torch and diffusers take seconds

    try:
        serve(config, lifeline, open_painter(config))
    except OutOfMemory as error:
        lifeline.say("out_of_memory", str(error))
        raise SystemExit(1) from None


if __name__ == "__main__":
    if hasattr(os, "nice"):  # on Windows it is started with low priority
        os.nice(NICENESS)
    run_node(PAINT, run)
