"""What the columns of exported tables are, as the JSON files beside them say it."""

from collections.abc import Iterable

from stream.exports.tables import Column

AS_TEXT = (
    "; a tab, a line break and other controls stand as \\t, \\n and \\x1b, an empty text as n/a, "
    "and readers may take spaces at its ends away"
)
_SECONDS = {"Units": "s"}
EVENTS: dict[str, Column] = {
    "onset": {"Description": "Of the event in this file: sample / SamplingFrequency"} | _SECONDS,
    "duration": {"Description": "Of what was marked bad or not recorded, else 0"} | _SECONDS,
    "trial_type": {
        "Description": "What the row is",
        "Levels": {
            "image": "An image was shown: a marker that names a stimulus",
            "marker": "Another marker of the stimulus program",
            "BAD_marked": "A span that was marked bad, and what for",
            "BAD_ACQ_SKIP": "Nothing was recorded: the samples are zeros",
        },
    },
    "value": {"Description": "A number for each trial_type"},
    "sample": {"Description": "Number of the sample in this file, from 0 on"},
    "trial": {"Description": "Number of the trial in the session that recorded this"},
    "stimulus": {"Description": f"Id of the stimulus, as its marker has it{AS_TEXT}"},
    "stim_id": {"Description": "The stimulus in stimuli/stimuli.tsv"},
    "stim_file": {"Description": "The image, below stimuli/"},
    "group": {"Description": f"Presentations of one group may be averaged{AS_TEXT}"},
    "repeat": {"Description": "Which presentation of its group this is, from 1 on"},
    "block": {"Description": "How many markers that begin a block came before"},
    "marker": {"Description": f"Text of the marker, as it was sent{AS_TEXT}"},
    "onset_s": {
        "Description": "When the marker was sent, on the LSL clock of the session; the sample is "
        "the one that was taken nearest to it"
    }
    | _SECONDS,
    "residual_s": {"Description": "When the sample was taken, less onset_s"} | _SECONDS,
}
_DECODED: dict[str, Column] = {
    "fate": {
        "Description": "What became of the trial",
        "Levels": {
            "decoded": "It was answered",
            "cut": "It was cut; the session had no model",
            "dropped": "It was not used",
        },
    },
    "reason": {"Description": "Why it was dropped"},
    "detail": {"Description": "Why it was dropped, in a sentence"},
    "rank": {"Description": "Place of the stimulus among all images, from 1 on; 0: not among them"},
    "calibrated": {"Description": "Whether the probabilities are calibrated"},
    "abstain": {"Description": "Whether the answer was too unsure to be given"},
    "tmax_s": {"Description": "How much EEG is in the answer, after the onset"} | _SECONDS,
    "n_repeats": {"Description": "Presentations that are in the answer"},
    "n_provisional": {"Description": "Answers that came before the end of the trial"},
    "latency_ms": {"Description": "From the end of the window to the answer", "Units": "ms"},
    "painted": {"Description": "The picture that was painted, in the folder of the session"},
    "recording_s": {"Description": "Onset from the first sample of that recording on"} | _SECONDS,
    "recording": {"Description": "The file of the session's folder in which the onset is"},
    "sent_s": {"Description": "The stamp of the marker in the clock of its sender"} | _SECONDS,
    "marker_readable_s": {"Description": "When the marker had arrived, as onset_s"} | _SECONDS,
}


def of_decoded(names: Iterable[str]) -> dict[str, Column]:
    """Of columns of the table of trials."""
    known = {**_DECODED, **{name: EVENTS[name] for name in EVENTS if name != "trial_type"}}
    return {name: known.get(name) or _numbered(name) for name in names}


def _numbered(name: str) -> Column:
    kind, _, which = name.partition("_")
    if kind == "answer":
        return {"Description": f"Id of image {which} of the answer, best first"}
    if kind == "probability":
        return {"Description": f"Of image {which} of the answer, among all images"}
    stage = which.removesuffix("_s").replace("_", " ")
    return {"Description": f"When the trial had passed the stage '{stage}', as onset_s"} | _SECONDS
