"""A peer for tests, who has its own subscriber: `python -m tests.stream.fake_peer JOB`.

It answers each marker at once, with the first images of the gallery.
"""

import sys
from pathlib import Path

from index.gallery import open_gallery
from stream.acquire.lsl import find_stream, local_clock, pylsl
from stream.bench.peers.job import READY, Job, heard, message


def answer(job: Job) -> None:
    ids = open_gallery(job.gallery).ids
    inlet = pylsl.StreamInlet(find_stream(job.markers, 10.0).info)
    inlet.open_stream(10.0)
    print(READY, flush=True)
    with job.said.open("a", buffering=1, encoding="utf-8") as said:
        while True:
            sample, _ = inlet.pull_sample(1.0)
            if sample is not None:
                text = message(ids[int(sample[0]) - 1], ids[:5], [0.9] * 5)
                said.write(heard(text, local_clock()))


if __name__ == "__main__":
    answer(Job.model_validate_json(Path(sys.argv[1]).read_text("utf-8")))
