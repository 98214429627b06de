"""What a session's models do not allow is refused before anything is started."""

from pathlib import Path

import pytest

from hvf_core.problem import Problem
from stream.pipeline.check import check
from stream.pipeline.wire.config import SessionSettings
from tests.tiny_bundle import CHANNELS, tiny_bundle, tiny_models, tiny_preprocessing


def test_a_bundle_of_trials_that_others_whitened_decodes_no_stream(tmp_path: Path) -> None:
    models = tiny_models(tmp_path)
    settings = SessionSettings(bundle=models / "bundle", gallery=models / "gallery")
    assert len(check(settings) or ()) == 8
    made = tiny_preprocessing(CHANNELS, 100, 0.19)["preprocessing"] | {"whitening": "given"}
    tiny_bundle(tmp_path / "whitened", preprocessing=made)
    with pytest.raises(Problem, match="others had whitened, as no stream can be: train one with"):
        check(settings.model_copy(update={"bundle": tmp_path / "whitened"}))
