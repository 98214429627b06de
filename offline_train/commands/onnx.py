"""onnx: writes a bundle's brain encoder as ONNX."""

from pathlib import Path
from typing import Annotated

import typer

from decoder.engines.choice import Precision
from hvf_core.problem import Problem
from offline_train.commands.options import BundleFolder, console


def onnx(
    bundle: BundleFolder,
    out: Annotated[Path, typer.Option(help="File to write, NAME.onnx")],
    precision: Annotated[Precision, typer.Option(help="Of the weights")] = "fp32",
    gallery: Annotated[Path | None, typer.Option(help="Compare top-5 lists on it")] = None,
) -> None:
    """Writes the brain encoder as ONNX, one trial to one unit vector, and checks it against torch.

    Example: python -m offline_train onnx --bundle b --out encoder.onnx
    """
    from decoder.brain.registry import load_brain_encoder
    from decoder.bundle import load_bundle
    from decoder.engines.export import export_onnx
    from decoder.engines.graph import UnitLength
    from index.gallery import load_gallery

    opened = load_bundle(bundle)
    manifest = opened.manifest
    network = UnitLength(load_brain_encoder(opened))
    shape = (len(manifest.channels), manifest.n_times)
    embeddings = load_gallery(gallery).counted if gallery is not None else None
    try:
        check = export_onnx(network, shape, out, precision, embeddings)
    except OSError as error:
        raise Problem(
            f"'{out}' cannot be written ({error.strerror}); name another file with --out"
        ) from None
    console.print(
        f"'{out}' takes {shape[0]} channels x {shape[1]} times in {precision}; beside torch, on "
        f"{check.n_inputs} random trials: lowest cosine {check.lowest_cosine:.7f}, same top-5 in "
        f"{check.same_top5:.0%}",
        highlight=False,
    )
