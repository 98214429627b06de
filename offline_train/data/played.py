"""What of a data set is played to a session, as if it came from an amplifier."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from hvf_core.problem import Problem
from offline_train.data.cut import window_in
from offline_train.data.study import CutTrials, Facts, Study, whitened
from stream.acquire.preprocess import Preprocessing
from stream.sources.recording import Recording

_TRIALS = 256  # that are in memory at a time, of those that were cut before


def played(
    study: Study, split: str | None, preprocessing: Preprocessing | None
) -> Iterator[tuple[Facts, Recording]]:
    """The recordings of one subject, in their order; trials that others have cut are pieces of one.

    Args:
        split: which of its splits; None: `test`, and what is of none.
        preprocessing: of the bundle that is to decode them, if there is one.

    Raises:
        Problem: there is none of this split, or of a second subject; or trials were whitened by
            others, or are shorter than the bundle needs them.
    """
    passed: Counter[str | None] = Counter()
    subject: Facts | None = None
    for data, facts in study.parts:
        if facts.split != (split or "test") and not (split is None and facts.split is None):
            passed[facts.split] += 1
            continue
        subject = subject or facts
        if facts.subject != subject.subject:
            raise Problem(
                f"there are subjects {subject.subject} and {facts.subject}, and a session is of "
                "one: give the folder of one of them"
            )
        if isinstance(data, Recording):
            yield facts, data
            continue
        yield from ((facts, piece) for piece in _pieces(data, preprocessing))
    if subject is None:
        there = ", ".join(f"{n} of {name or 'no split'}" for name, n in passed.items())
        raise Problem(
            f"there is nothing of the split '{split or 'test'}', but {there or 'no recording'}: "
            "give another --split, or none, or another folder of the data set"
        )


def _pieces(cut: CutTrials, preprocessing: Preprocessing | None) -> Iterator[Recording]:
    if cut.is_whitened:
        raise whitened(cut.name)
    if preprocessing is not None:
        window_in(cut, preprocessing.prepare(preprocessing.settings.channels, cut.rate_hz))
    notices: tuple[str, ...] = ("there is no recording: trials are played, a pause after each",)
    for piece in cut.pieces(_TRIALS):
        yield replace(piece, notices=notices)
        notices = ()
