"""What messages of the wire are about, for tests that do not care."""

from stream.pipeline.wire.messages import AnswerRef, TrialRef


def about(trial: int, **changes: object) -> TrialRef:
    told = {"session": "s", "stimulus": f"stimulus {trial}", "group": "g", "repeat": 1}
    return TrialRef(**(told | {"trial": trial, "onset_s": 0.5} | changes))


def answer(tmax_s: float = 1.0, n_repeats: int = 1) -> AnswerRef:
    """One that is provisional before 1 s."""
    return AnswerRef(n_repeats=n_repeats, tmax_s=tmax_s, provisional=tmax_s < 1)
