"""Refuses, before anything is started, settings that the models of a session do not allow."""

from importlib.util import find_spec

from decoder.bundle import Bundle, load_bundle
from decoder.calibration import temperature_of
from hvf_core.problem import Problem, needed
from index.gallery import Gallery, check_space, load_gallery
from stream.acquire.adaptation import Adaptation
from stream.acquire.adapted import open_adapted
from stream.acquire.preprocess import Preprocessing
from stream.pipeline.books.trial_file import check_trial_file
from stream.pipeline.galleries import among, refuse_without_index
from stream.pipeline.wire.config import DecodingSettings, SessionSettings


def check(settings: SessionSettings) -> Gallery | None:
    """Reads and verifies the models of a session, which its nodes then only open.

    Returns:
        The gallery, in a session that has one.

    Raises:
        Problem: a model is missing or damaged, or cannot do what is asked for.
    """
    if settings.outputs.osc is not None and find_spec("pythonosc") is None:
        raise Problem(
            f"--osc {settings.outputs.osc} needs python-osc, which is not installed: install it "
            'with `pip install -c constraints.txt -e ".[osc]"`, or leave the option out'
        )
    if settings.save_trials is not None:
        check_trial_file(settings.save_trials)
    if settings.bundle is None:
        return None
    bundle = load_bundle(settings.bundle)
    manifest, trials = bundle.manifest, settings.trials
    if Preprocessing.of(bundle).settings.whitening == "given":
        raise Problem(
            f"the bundle '{settings.bundle}' was trained with trials that others had whitened, as "
            "no stream can be: train one with the recordings of its data set, or decode such "
            "trials with `python -m offline_train evaluate`"
        )
    if "tmin_s" in trials.model_fields_set and trials.tmin_s != manifest.tmin_s:
        raise Problem(
            f"--tmin {trials.tmin_s:g} is not the window of the bundle '{settings.bundle}', which "
            f"was trained with {manifest.tmin_s:g}; leave --tmin out, or train a bundle for it"
        )
    _check_decoding(bundle, settings.decoding)
    gallery = load_gallery(needed(settings.gallery))
    check_space(gallery, manifest)
    among(gallery, settings.decoding.among)
    refuse_without_index(gallery, settings.decoding.search)
    return gallery


def _check_decoding(bundle: Bundle, decoding: DecodingSettings) -> None:
    manifest = bundle.manifest
    manifest.marks(decoding.tmax_s)
    temperature_of(manifest.calibration, decoding.evidence, manifest.tmax_s, 1)
    if decoding.min_confidence and manifest.calibration is None:
        raise Problem(
            f"--min-confidence {decoding.min_confidence:g} compares probabilities, and the bundle "
            "has no calibration: calibrate it with `python -m offline_train calibrate`, or leave "
            "the option out"
        )
    if decoding.rest is not None and not decoding.rest.exists():
        raise Problem(f"there is no file '{decoding.rest}'; give the path of a recording")
    if decoding.adapted is not None:
        open_adapted(decoding.adapted)[0].check(bundle.directory, decoding.adapted_for_h)
    if decoding.adaptation is not None:
        Adaptation(Preprocessing.of(bundle), decoding.adaptation)
