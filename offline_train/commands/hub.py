"""share, the empty prompt, and importing what the paper's authors have released."""

from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import TRAIN, Flag
from hvf_core.problem import WrongUsage
from offline_train.commands.options import Base, Cache, Encoders, Images, Out, bar, console


def share(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on huggingface.co")],
    public: Annotated[bool, Flag("--public", help="For everybody to see")] = False,
    message: Annotated[str, typer.Option(help="Of the commit")] = "A bundle of hvf-live",
) -> None:
    """Uploads a bundle to the Hugging Face hub; log in first with `hf auth login`.

    Example: python -m offline_train share bundle my-lab/sub-01
    """
    from offline_train.hub.bundles import push_bundle

    console.print("bundle.json names the command and the files that it was trained with")
    console.print(push_bundle(bundle, repo, private=not public, message=message))
    console.print(f"next: {TRAIN} fetch {repo} --to FOLDER", soft_wrap=True)


def empty_prompt(base: Base = "sdxl-base") -> None:
    """Encodes the empty prompt of a diffusion model, once, so that painting needs no text encoder.

    Example: python -m offline_train empty-prompt --base sdxl-base
    """
    from decoder.painting.spec import read_base_spec
    from offline_train.prior.empty_prompt import encode_empty_prompt

    for name, shape in encode_empty_prompt(read_base_spec(base)).items():
        console.print(f"{name}: {shape}", highlight=False)


def import_prior(
    folder: Annotated[Path, typer.Argument(help="As it was released: fusion_encoder, proj, ...")],
    out: Out,
    encoders: Encoders = None,
    base: Base = "sdxl-base",
    half: Annotated[bool, Flag("--half", help="Write the weights in float16")] = False,
) -> None:
    """Makes a prior of a Fusion Prior that the paper's authors have released.

    Example: python -m offline_train import-prior Fusion-Prior-H14_B32_VAE --out prior
    """
    import torch

    from decoder.painting.prior import PRIOR
    from decoder.painting.spec import read_base_spec
    from hvf_core.artifact import refuse_taken
    from hvf_core.provenance import command_line
    from index.encoders.load import load_encoders
    from index.encoders.spec import read_specs
    from offline_train.data.features import records_of
    from offline_train.hub.released_prior import encoders_of, import_prior

    refuse_taken(out, PRIOR, "a prior")
    named = encoders or ",".join(encoders_of(folder).values())
    records = records_of(load_encoders(read_specs(named)))
    dtype = torch.float16 if half else torch.float32
    made = import_prior(folder, out, records, read_base_spec(base), command_line(), dtype)
    fused = ", ".join(record.name for record in made.manifest.image_encoders)
    console.print(f"prior in '{out}', of {fused}; mean length of z_f {made.manifest.z_norm:.2f}")
    console.print(f"next: {TRAIN} mbp TRIALS --prior {out} --encoders {named} --images ...")


def import_features(
    files: Annotated[list[Path], typer.Argument(help="All Parquet files of one image encoder")],
    images: Images = None,
    encoders: Encoders = None,
    cache: Cache = Path("features"),
) -> None:
    """Takes embeddings of images that the paper's authors have released into the cache.

    Those that are spoilt, as one released set is, or that the encoder does not give, are refused.

    Example: python -m offline_train import-features things_*_vae-part-* --images THINGS
    """
    from index.encoders.load import load_encoders
    from index.encoders.spec import read_specs
    from offline_train.data.images import pictures_of
    from offline_train.features.cache import FeatureCache
    from offline_train.hub.released_features import encoder_of, import_features, read_released
    from offline_train.hub.released_prior import name_of

    theirs = encoder_of(files)
    specs = read_specs(encoders or name_of(theirs, files[0]))
    if len(specs) != 1:
        raise WrongUsage(f"--encoders {encoders} says {len(specs)} image encoders: say one")
    released = read_released(files)
    with bar("reading images") as tell:
        pictures = pictures_of(images, progress=tell)
    (encoder,) = load_encoders(specs)
    into = FeatureCache(cache, encoder, console.print)
    n, n_absent, cosine = import_features(released, pictures.contents, pictures.read, into)
    absent = f", {n_absent} that are not here passed over" if n_absent else ""
    console.print(
        f"features of {n} images in '{cache}'{absent}; median cosine of random pairs "
        f"{released.cosine:.3f}, of what '{encoder.spec.name}' gives here to what was released at "
        f"least {cosine:.3f}",
        soft_wrap=True,
    )
