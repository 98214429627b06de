"""What comes next: after each command of a lab's day the one that follows, to be copied."""

import shlex
from collections.abc import Mapping
from typing import Literal

from hvf_core.options import called

LIVE = called("hvf-live", "python run_realtime.py")
TRAIN = called("hvf-train", "python -m offline_train")
Step = Literal[
    "record",
    "prepare",
    "mbp",
    "gallery",
    "prepare-test",
    "calibrate",
    "evaluate",
    "live",
    "export",
    "decode-again",
]
STEPS: Mapping[Step, str] = {
    "record": f"{LIVE} record --require {{eeg}} --require {{markers}} --out s01.xdf",
    "prepare": f"{TRAIN} prepare {{recording}} --out trials",
    "mbp": f"{TRAIN} mbp {{trials}} --images {{images}} --encoders {{encoders}} --out model/bundle",
    "gallery": f"{TRAIN} gallery --bundle {{bundle}} --out {{gallery}}",
    "prepare-test": f"{TRAIN} prepare-test {{recording}} --bundle {{bundle}} --out held_out",
    "calibrate": f"{TRAIN} calibrate --bundle {{bundle}} --gallery {{gallery}} --trials {{trials}}",
    "evaluate": f"{TRAIN} evaluate --bundle {{bundle}} --gallery {{gallery}} --trials {{trials}}",
    "live": f"{LIVE} live --eeg {{eeg}} --markers {{markers}} --bundle {{bundle}}",
    "export": f"{LIVE} export {{folder}} --bids study --subject {{subject}} --task {{task}} "
    "--line-freq {hz}",
    "decode-again": f"{TRAIN} evaluate --session {{folder}}",
}
"""With the least that each needs, in the order of a lab's day."""


def onward(step: Step, *more: object, **known: object) -> str:
    """`next: ` and a command; what nobody knows yet stands there in capitals.

    Args:
        step: which command.
        more: words that follow, as options that this one needs.
        known: what is known of the names in its words; None is not known.
    """
    told = {name: shlex.quote(str(value)) for name, value in known.items() if value is not None}
    words = STEPS[step].format_map(_Capitals(told))
    return " ".join(["next:", words, *(shlex.quote(str(word)) for word in more)])


class _Capitals(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return name.upper()
