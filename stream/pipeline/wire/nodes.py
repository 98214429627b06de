"""The registry of nodes: what each process of a session is, as data."""

from collections.abc import Callable
from dataclasses import dataclass

from stream.pipeline.wire.config import SessionConfig

RESULTS, RECORD, DECODE, PAINT, READER = "results", "record", "decode", "paint", "reader"
SUPERVISOR = "supervisor"
"""Under which name the process that started the nodes says how they are."""
SOURCE = "source"  # what plays streams, where a session brings its own


@dataclass(frozen=True)
class NodeSpec:
    """A node, and how it is looked after."""

    name: str
    module: str
    """What `python -m` runs."""
    needed: Callable[[SessionConfig], bool] = lambda config: True
    optional: bool = False
    """Nothing waits for it: where it fails it is given up, and the session goes on."""
    hung_after_s: float = 15.0
    """Without a heartbeat, of which there is one a second."""
    load_wait_s: float = 120.0
    """For the first, when it is started again."""
    end_wait_s: float = 5.0
    """For its last words, once it is told to stop."""
    max_restarts: float = 5
    """In a row, each within a minute; a needed node that dies once more ends the session."""
    has_low_priority: bool = False
    """Whether others have the processor first."""
    longest_pause_s: float = 0.5
    """Before a restart; pauses double up to here."""


NODES = (
    NodeSpec(RESULTS, "stream.pipeline.nodes.results"),
    NodeSpec(RECORD, "stream.pipeline.nodes.record", needed=lambda config: config.record),
    NodeSpec(
        DECODE,
        "stream.pipeline.nodes.decode",
        needed=lambda config: config.bundle is not None,
    ),
    NodeSpec(READER, "stream.pipeline.nodes.reader"),
    NodeSpec(
        PAINT,
        "stream.pipeline.nodes.paint",
        needed=lambda config: config.painting is not None,
        optional=True,
        has_low_priority=True,
        load_wait_s=float("inf"),
        hung_after_s=120.0,  # a step of a large model may take long
        end_wait_s=0.5,  # it had its time before
        max_restarts=float("inf"),
        longest_pause_s=30.0,
    ),
)
"""In the order in which they start."""


def nodes_of(config: SessionConfig) -> tuple[NodeSpec, ...]:
    """The nodes that a session has."""
    return tuple(spec for spec in NODES if spec.needed(config))


def node(name: str) -> NodeSpec:
    """The node of this name."""
    return next(spec for spec in NODES if spec.name == name)
