"""What messages of the wire are about, for tests that do not care."""

import numpy as np

from stream.pipeline.wire.messages import AnswerRef, Overheard, TrialRef


def about(trial: int, **changes: object) -> TrialRef:
    told = {"session": "s", "stimulus": f"stimulus {trial}", "group": "g", "repeat": 1}
    return TrialRef(**(told | {"trial": trial, "onset_s": 0.5} | changes))


def answer(tmax_s: float = 1.0, n_repeats: int = 1) -> AnswerRef:
    """One that is provisional before 1 s."""
    return AnswerRef(n_repeats=n_repeats, tmax_s=tmax_s, provisional=tmax_s < 1)


def overheard(
    *raw_s: float, text: str = "a", offset_s: float = 0.0, readable_s: float = 0.0
) -> Overheard:
    """Markers of one text that the second inlet has heard."""
    return Overheard(
        raw_s=np.array(raw_s).tobytes(),
        texts=[[text]] * len(raw_s),
        offset_s=offset_s,
        readable_s=readable_s,
        array=np.empty(0),
    )
