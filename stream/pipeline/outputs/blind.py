"""What is left of a message where nobody outside may know what was shown.

Whoever looks on, the participant's own program among them, then has answers without the truth. The
tables name what may go out; a field that is in none of them stays, as text without letters, a list
as long of them, 0 or nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.messages import (
    ChannelQuality,
    Controlled,
    Eeg,
    Embedded,
    End,
    MarkerSeen,
    Message,
    NodeState,
    Noted,
    Overheard,
    Painted,
    PaintingState,
    Preview,
    Recorded,
    Retrieval,
    SessionClosed,
    SessionState,
    Settled,
    Snapshot,
    StreamHealth,
    TrialCut,
    TrialDropped,
    TrialSlice,
)
from stream.pipeline.wire.nodes import RESULTS, SUPERVISOR

_ABOUT = "session trial repeat onset_s block"
_ANSWER = "ids scores probabilities calibrated abstain n_repeats tmax_s stamps"
_IMAGE = "seed ip_scale steps size_px strength file"
LEFT: Mapping[type[Message], str] = {
    MarkerSeen: "about readable_s sent_s",  # its mark is made of its text, which could be tried
    Retrieval: "about answer ids labels scores probabilities confidence calibrated abstain stamps",
    PaintingState: "trial state",
    Preview: "about answer step n_steps image_format image stamps",
    Painted: f"about answer {_IMAGE} image_format image stamps",
    Settled: "trial outcome reason markers pending",
    NodeState: "node incarnation since_s until_s to first",
    Noted: "node text",
    StreamHealth: (
        "stream kind state rate_hz drift_ppm gaps age_s flat clipped offset_s offset_uncertainty_s"
    ),
    SessionClosed: "summary",
    Eeg: "channels rate_hz stamps_s markers_s array",
    ChannelQuality: ("channels until_s rms_uv peak_to_peak_uv line_uv line_hz flat clipped"),
    SessionState: "state",
    Controlled: "verb by outcome stamp_s argument text facts",
    Snapshot: "config markers pending outcomes reasons trials last",
}
"""What goes out of each kind of message that is published."""
INSIDE = (TrialSlice, TrialDropped, TrialCut, Embedded, Recorded, End, Overheard)
"""Kinds that one process of the session sends another, and nobody else."""
RECORDS: Mapping[str, str] = {
    "start": "session node at_s",
    "marker": "trial repeat onset_s block readable_s sent_s",
    "provisional": f"of_trial {_ANSWER}",
    "decoded": f"trial {_ANSWER}",
    "cut": "trial residual_s stamps",
    "dropped": "trial reason",
    "painting": "of_trial state",
    "painted": f"of_trial n_repeats tmax_s provisional {_IMAGE} stamps",
    "stream": "name state age_s at_s",
    "session": "state at_s",
    "listening": "node since_s first",
    "node_lost": "node at_s",
    "unheard": "from_s until_s",
    "note": "node at_s",
    "control": "verb by outcome stamp_s",
    "end": "reason",
}
"""The same of the records of a ledger."""
_CONFIG = "session folder endpoints bundle gallery decoding painting top_k outputs realtime"
WORDS = ("mark", "reset_group")  # verbs with words of whoever knows what is shown
M = TypeVar("M", bound=Message)
_SPEAK = (RESULTS, SUPERVISOR)
"""Nodes that know no marker's text, or do not quote it."""
NOTE = "a note is in the ledger"


def leaving(config: SessionConfig) -> Callable[[M], M]:
    """What goes out of a session's messages: all, or what is left of them."""
    return left if config.outputs.blind else lambda message: message


def left(message: M) -> M:
    """What may go out of a message; of which kind it is stays, and its trial and stamps.

    Raises:
        KeyError: it is of a kind that never goes out.
    """
    kept = LEFT[type(message)]
    if isinstance(message, Controlled) and message.verb in WORDS:
        kept = RECORDS["control"]
    changes: dict[str, Any] = {}
    told: Message = message
    match told:
        case MarkerSeen() | Retrieval() | Preview() | Painted():
            changes["about"] = _only(told.about, _ABOUT)
        case Noted() if told.node not in _SPEAK:
            changes |= {"text": NOTE}
        case SessionClosed(summary=summary):
            changes["summary"] = summary_left(summary)
        case Snapshot(config=config, trials=trials):  # its messages are what had gone out
            changes["config"] = {name: config[name] for name in _CONFIG.split()}
            changes["trials"] = list(map(record_left, trials))
    return cast(M, _only(message, kept, **changes))


def _only(told: Any, kept: str, **changes: Any) -> Any:
    """The same with what is kept of its fields, and with other changes."""
    gone = {n: _nothing(one) for n, one in vars(told).items() if n not in kept.split()}
    return replace(told, **gone | changes)


def _nothing(value: Any) -> Any:
    return [_nothing(one) for one in value] if isinstance(value, list) else type(value)()


def record_left(record: Mapping[str, Any]) -> dict[str, Any]:
    """What may go out of a record of the ledger."""
    kept = RECORDS[record["event"]].split()
    return {name: value for name, value in record.items() if name in ("event", *kept)}


def summary_left(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary without how right the answers were, and without sentences."""
    streams = {**summary.get("streams", {}), "notices": []}
    right = dict.fromkeys(("top1", "top5", "confidence")) | {"n": 0}
    told = {name: value for name, value in summary.items() if name != "failure"}
    return {**told, **right, "by_repeats": {}, "by_tmax": {}, "streams": streams}
