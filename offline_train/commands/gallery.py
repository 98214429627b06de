"""gallery: embeds the images that are told apart."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hvf_core.provenance import command_line
from offline_train.commands.options import (
    LIVE,
    BundleFolder,
    Cache,
    Encoders,
    Images,
    Out,
    console,
    features_of,
)


def gallery(
    bundle: BundleFolder,
    out: Out,
    images: Images = None,
    encoders: Encoders = None,
    labels: Annotated[
        str, typer.Option(help="Comma-separated classes, for a bundle trained with --labels")
    ] = "",
    cache: Cache = Path("features"),
) -> None:
    """Embeds images with a bundle's HVF: the gallery that is searched.

    Example: python -m offline_train gallery --bundle b --images test --encoders paper-retrieval ...
    """
    from decoder.bundle import load_bundle
    from hvf_core.artifact import refuse_foreign
    from index.gallery import MANIFEST, save_gallery
    from offline_train.brain.gallery import build_gallery
    from offline_train.data.features import label_features

    refuse_foreign(out, MANIFEST)
    opened = load_bundle(bundle)
    classes = [label for label in labels.split(",") if label]
    if classes:
        ids, files, features = classes, None, label_features(sorted(classes))
    else:
        pictures, features = features_of(None, images, encoders, cache)
        ids, files = list(pictures.files), tuple(pictures.files.values())
    features.check_encoders(opened.manifest.image_encoders, f"the bundle '{bundle}'")
    made = build_gallery(ids, ids, features, opened, command_line())
    save_gallery(out, replace(made, images=files))  # which are copied as they are
    console.print(f"{len(made)} images in '{out}'")
    console.print(f"next: {LIVE} live --bundle {bundle} --gallery {out} ...")
