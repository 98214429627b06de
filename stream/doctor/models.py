"""The models of a session to come, or else the demo's: whole, of one space, and running."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from decoder.bundle import load_bundle, open_bundle
from decoder.calibration import CALIBRATE
from decoder.engines.choice import ON_CPU, ON_GPU, EngineName
from hvf_core.problem import Problem
from hvf_core.text import some_of
from index.gallery import load_gallery, open_gallery
from stream.acquire.filters import DELAY_AT_HZ, delay_s
from stream.acquire.preprocess import Preprocessing
from stream.doctor.verdict import Named, Verdict, verdict
from stream.pipeline.check import check
from stream.pipeline.wire.config import SessionSettings


def bundle(named: Named) -> Iterator[Verdict]:
    if named.settings.bundle is None:
        return
    found = load_bundle(named.settings.bundle)
    manifest, preprocessing = found.manifest, Preprocessing.of(found)
    channels, fitted = preprocessing.settings.channels, manifest.calibration
    yield verdict(
        f"bundle '{found.directory}' is whole: {manifest.brain_encoder.name}, {manifest.tmin_s:g} "
        f"to {manifest.tmax_s:g} s, {len(manifest.channels)} channels, space {manifest.space[:12]}"
    )
    yield verdict(
        f"its stream has {preprocessing.signal} at {manifest.rate_hz:g} Hz or more, and the "
        f"{len(channels)} channels ({some_of(channels)})"
    )
    if preprocessing.settings.filters:
        late_s = delay_s(preprocessing.settings.filters, manifest.rate_hz, DELAY_AT_HZ)
        yield verdict(f"its filters delay the EEG by {1e3 * late_s:.1f} ms at {DELAY_AT_HZ:g} Hz")
    yield verdict(
        f"its probabilities are calibrated on {fitted.n_items if fitted else 'no'} images",
        (fitted is None, f"believe none, but {CALIBRATE}"),
    )


def engines(named: Named) -> Iterator[Verdict]:
    import torch

    if named.settings.bundle is not None:
        for name in ON_GPU if torch.cuda.is_available() else ON_CPU:
            yield from _run(named.settings.bundle, name)


def demo(named: Named) -> Iterator[Verdict]:
    """What decodes where no bundle is named; unpacked into the cache, as the demo does."""
    if named.settings.bundle is None:
        from demo.model import ready_model

        model = ready_model()
        check(SessionSettings(bundle=model.bundle, gallery=model.gallery))
        yield verdict("the demo's model is whole")
        yield from _run(model.bundle, "torch")


def _run(bundle: Path, name: EngineName) -> Iterator[Verdict]:
    """Runs in an engine what a session runs in it; its answers must be those of torch."""
    from decoder.anytime import shares_of
    from decoder.brain.registry import load_brain_encoder
    from decoder.engines.compiled import can_run
    from decoder.engines.graph import UnitLength
    from decoder.engines.open import open_engine

    encoder, said = load_brain_encoder(open_bundle(bundle)), [""]
    shares = shares_of(encoder, [encoder.n_times])
    network = UnitLength(shares.rest)
    if name == "compiled" and not can_run(network):
        return
    with TemporaryDirectory() as folder:
        engine = open_engine(network, shares.rest_shape, name, cache=Path(folder), say=said.append)
    yield verdict(f"trials run through engine {engine.name}", (engine.name != name, said[-1]))


def gallery(named: Named) -> Iterator[Verdict]:
    if named.settings.gallery is None:
        return
    found = load_gallery(named.settings.gallery)
    yield verdict(f"gallery '{named.settings.gallery}' is whole: {len(found)} images")
    with ThreadPoolExecutor() as pool:
        images = (found.image_of(row) for row in found.rows.tolist())
        faults = list(filter(None, pool.map(_fault, filter(None, images))))
    if faults:
        raise Problem(
            f"{len(faults)} of its {len(found)} images cannot be opened, first {faults[0]}: copy "
            "the whole gallery again, or make it again"
        )
    yield verdict(
        "all of its image files can be opened" if found.images else "it has no image files",
        (found.images is None, "answers are names only"),
    )


def _fault(file: Path) -> str:
    """Why an image cannot be shown; all of it is decoded."""
    from index.images import open_image

    if not file.is_file():
        return f"'{file.name}' (missing)"
    try:
        open_image(file)
    except Problem:
        return f"'{file.name}' (damaged)"
    return ""


def painting(named: Named) -> Iterator[Verdict]:
    """Prior and base; nothing is fetched from the hub."""
    if (asked := named.settings.painting) is None or named.settings.bundle is None:
        return
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the next lines are
    from decoder.painting.base import load_base
    from decoder.painting.prior import check_bundle, check_fits, load_prior
    from decoder.painting.spec import read_base_spec

    prior = load_prior(asked.prior)
    _ = prior.hvf, prior.projector, prior.adapter  # filled now, unless they do not fit
    check_bundle(prior, open_bundle(named.settings.bundle).manifest)
    yield verdict(f"prior '{asked.prior}' is whole, and of the bundle's space")
    base = load_base(read_base_spec(asked.base or prior.manifest.base))
    check_fits(prior, base)
    yield verdict(f"base '{base.spec.name}' is whole, and the prior fits it")


def milvus(named: Named) -> Iterator[Verdict]:
    """The server that is named, and what it holds of the gallery."""
    if (asked := named.settings.decoding.milvus) is None:
        return
    from index.search.milvus.kept import read_kept, refuse_other
    from index.search.milvus.server import Server
    from index.search.milvus.settings import in_the_clear

    server = Server(asked.uri)
    yield verdict(
        f"the Milvus server at {asked.uri} is of version {server.version}",
        (in_the_clear(asked.uri), "embeddings of the brain go there for all to read, use https"),
    )
    if named.settings.gallery is not None:
        opened = open_gallery(named.settings.gallery)
        collection = read_kept(opened).collection
        held = refuse_other(server, collection, opened)
        yield verdict(f"its collection '{collection}' has {held.n_rows} images of the gallery")


def together(named: Named) -> Iterator[Verdict]:
    """What a session asks of its settings before it starts."""
    if named.settings.bundle is not None:
        check(named.settings)
        yield verdict("bundle, gallery and settings fit each other")


CHECKS = (demo, bundle, engines, gallery, milvus, painting, together)
