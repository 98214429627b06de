"""What image encoders have seen, on disk: known by the content of each image.

It knows encoders by their weights and by what these give: other names cost nothing, and nothing
that has changed is taken for what it was.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from hvf_core.artifact import whole_file, write_tensors
from hvf_core.problem import Problem
from index.encoders.load import ImageEncoder, same_encoder
from index.images import READING
from offline_train.checkpoint import identify


class FeatureCache:
    """What one encoder has seen.

    Attributes:
        known: its embeddings, by the content of the image.
    """

    def __init__(self, cache_dir: Path, encoder: ImageEncoder, say: Callable[[str], None]) -> None:
        self.encoder = encoder
        self.known: dict[str, np.ndarray] = {}
        self._unwritten: list[str] = []
        # A folder without READING at its end knew images by their names: it is left alone.
        name = f"{encoder.spec.name}-{encoder.checksum[:16]}-{READING}"
        self._folder = cache_dir / name
        for path in sorted(self._folder.glob("*.safetensors")):
            try:
                self._read(path)
            except FileNotFoundError:
                continue  # another process has set it aside
            except (SafetensorError, KeyError, TypeError, ValueError):
                path.replace(path.with_suffix(".damaged"))
                say(f"'{path}' is damaged and set aside: its images are encoded again")

    def _read(self, path: Path) -> None:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata()
            there = file.get_tensor("embeddings")
        # What is known lies in the file: a million images' features are more than memory holds.
        place = path.stat().st_size - there.nbytes
        embeddings = np.memmap(path, there.dtype, "r", place, there.shape).view(np.ndarray)
        contents, fingerprint = json.loads(facts["contents"]), json.loads(facts["fingerprint"])
        if facts["sha256"] != _checksum(contents, embeddings):
            raise ValueError("not what was written")
        ours = self.encoder
        is_ours = facts["encoder"] == ours.checksum and embeddings.shape[1] == ours.spec.dim
        if is_ours and same_encoder(ours.fingerprint, fingerprint):
            self.known.update(zip(contents, embeddings, strict=True))

    def add(self, contents: Sequence[str], embeddings: np.ndarray) -> None:
        if not np.isfinite(embeddings).all():
            raise Problem(
                f"image encoder {self.encoder.spec.name!r} gives values that are not finite: "
                "its weights are damaged, fetch them again"
            )
        self.known.update(zip(contents, embeddings, strict=True))
        self._unwritten.extend(contents)

    def write(self) -> None:
        """Adds a file, named by what is in it, so that it takes no other one's place."""
        if not self._unwritten:
            return
        embeddings = np.stack([self.known[content] for content in self._unwritten])
        facts = {
            "contents": json.dumps(self._unwritten),
            "encoder": self.encoder.checksum,
            "fingerprint": json.dumps(self.encoder.fingerprint),
            "sha256": _checksum(self._unwritten, embeddings),
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{identify(dict(facts))[:16]}.safetensors"
        with whole_file(path) as draft:
            write_tensors(draft, {"embeddings": embeddings}, facts)
        self._unwritten.clear()
        self._read(path)


def _checksum(contents: Sequence[str], embeddings: np.ndarray) -> str:
    named = json.dumps([*contents, embeddings.dtype.str, embeddings.shape])
    return hashlib.sha256(named.encode() + embeddings.tobytes()).hexdigest()
