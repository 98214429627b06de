"""Your own sessions in NeuralBench: a study of neuralset over what `export --bids` made.

    python run_realtime.py export sessions/NAME --bids studies/HvfLive --subject 01 \\
        --task test --line-freq 50
    pip install neuralset      # in an environment of its own, with Python 3.12 or newer
    python neuralbench_study.py studies

What was exported as the task `test` is of the split `test`, all else of `train`, as NeuralBench
asks for it. neuralset knows a study by the name of its class, once this file is
imported, and finds its data in the folder of that name: `source: {name: HvfLive, path: studies}`.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from neuralset.events import study

SHOWN_S = 0.1
"""How long an image is taken to be seen where the markers do not tell, as of THINGS-EEG2."""


class HvfLive(study.Study):  # type: ignore[misc]
    """Recordings of a BIDS data set of hvf-live, and the images that were shown in them."""

    description: ClassVar[str] = "Sessions of hvf-live, exported as BIDS"

    def iter_timelines(self) -> Iterator[dict[str, Any]]:
        """Each recording, by the parts of its name, and its split."""
        for file in sorted(self.path.glob("sub-*/**/*_eeg.vhdr")):
            named = dict(re.findall(r"(sub|ses|task|run)-([^_]+)_", file.name))
            yield {
                "subject": named["sub"],
                "session": named.get("ses", "01"),
                "task": named["task"],
                "run": named.get("run", "01"),
                "split": "test" if named["task"] == "test" else "train",
                "file": str(file.relative_to(self.path)),
            }

    def _load_timeline_events(self, timeline: dict[str, Any]) -> pd.DataFrame:
        """The recording, and an event for each image of which there is a file."""
        recording = self.path / timeline["file"]
        table = recording.with_name(recording.name.replace("_eeg.vhdr", "_events.tsv"))
        # As texts: `NA` and `007` may be names of images.
        events = pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False, quoting=3)
        files = str(self.path / "stimuli") + "/" + events["stim_file"]
        shown = (events["trial_type"] == "image") & files.map(lambda file: Path(file).is_file())
        seconds = events["duration"].where(events["duration"] != "n/a", "0").astype(float)
        images = pd.DataFrame(
            {
                "type": "Image",
                "start": events["onset"].astype(float),
                "duration": seconds.where(seconds > 0, SHOWN_S),
                "filepath": files,
                "stem": events["stimulus"],
                "category": events["group"],
            }
        )
        eeg = {"type": "Eeg", "start": 0.0, "filepath": str(recording)}
        return pd.concat([pd.DataFrame([eeg]), images[shown]], ignore_index=True)


if __name__ == "__main__":
    events = HvfLive(path=sys.argv[1]).run()
    print(events.groupby(["subject", "split", "type"]).size().to_string())
