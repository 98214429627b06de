"""A Fusion Prior on disk: round trips, what it refuses, and the rule for brain embeddings."""

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from decoder.bundle import HVFRecord, ImageEncoderRecord, space_of
from decoder.hvf import HVF
from decoder.painting.prior import (
    Prior,
    PriorManifest,
    check_bundle,
    check_fits,
    load_prior,
    make_projector,
    save_prior,
)
from decoder.painting.sampler import Sampler
from hvf_core.artifact import file_sha256
from hvf_core.problem import Problem
from tests.tiny_sdxl import DIM, WIDTH, tiny_adapter, tiny_base

pytestmark = pytest.mark.slow

ENCODERS = (
    ImageEncoderRecord(name="what", dim=5, checksum="a"),
    ImageEncoderRecord(name="how", dim=7, checksum="b"),
)


def write(folder: Path, base: diffusers.UNet2DConditionModel, **changes: object) -> Prior:
    torch.manual_seed(0)
    hvf = HVF({e.name: e.dim for e in ENCODERS}, DIM, 9, dropout=0.0)
    manifest = PriorManifest(
        embedding_dim=DIM,
        projector_hidden=11,
        hvf=HVFRecord(hidden=9),
        cross_attention_dim=WIDTH,
        n_cross_attentions=8,
        family="tiny",
        base="tiny",
        image_encoders=ENCODERS,
        space="",
        z_norm=2.5,
    )
    manifest = manifest.model_copy(update=changes)
    return save_prior(folder, manifest, hvf, make_projector(DIM, 11), tiny_adapter(base.unet))


def test_stock_diffusers_takes_the_adapter_and_paints_the_same(tmp_path: Path) -> None:
    prior = write(tmp_path / "prior", tiny_base(tmp_path / "base"))
    z_c = prior.condition(torch.randn(1, DIM, generator=torch.Generator().manual_seed(1)))
    base = tiny_base(tmp_path / "base")
    parts = (base.vae, None, None, None, None, base.unet, base.scheduler)
    pipe = diffusers.StableDiffusionXLPipeline(*parts, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_ip_adapter(
        str(tmp_path / "prior"),
        subfolder="",
        weight_name="ip_adapter.safetensors",
        image_encoder_folder=None,
    )
    theirs = pipe(
        prompt_embeds=base.prompt_embeds,
        pooled_prompt_embeds=base.pooled_prompt_embeds,
        ip_adapter_image_embeds=[z_c[:, None]],
        height=base.spec.size_px,
        width=base.spec.size_px,
        num_inference_steps=base.spec.steps,
        guidance_scale=0.0,
        generator=torch.Generator().manual_seed(4),
        output_type="latent",
    ).images
    ours = Sampler(tiny_base(tmp_path / "base"), prior.adapter).denoise(z_c, [4])
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_the_condition_is_the_projector_of_an_embedding_of_the_usual_length(tmp_path: Path) -> None:
    prior = write(tmp_path / "prior", tiny_base(tmp_path / "base"))
    z = torch.randn(3, DIM, generator=torch.Generator().manual_seed(1))
    usual = z / z.norm(dim=1, keepdim=True) * 2.5
    expand, contract = (t.weight for t in (prior.projector.expand, prior.projector.contract))
    by_hand = usual + torch.nn.functional.gelu(usual @ expand.T) @ contract.T
    assert torch.allclose(prior.condition(z), by_hand, atol=1e-5)
    assert torch.allclose(prior.condition(100 * z), by_hand, atol=1e-5)
    assert torch.allclose(prior.condition(z, skip_projector=True), usual, atol=1e-5)


def test_its_space_is_that_of_a_bundle_with_the_same_hvf(tmp_path: Path) -> None:
    prior = write(tmp_path / "prior", tiny_base(tmp_path / "base"))
    arrays = {name: tensor.numpy() for name, tensor in prior.hvf.state_dict().items()}
    assert prior.manifest.space == space_of(arrays, ENCODERS)


@pytest.mark.parametrize("file", ["hvf", "projector", "ip_adapter"])
def test_a_damaged_or_missing_file_is_one_sentence(tmp_path: Path, file: str) -> None:
    write(tmp_path / "prior", tiny_base(tmp_path / "base"))
    path = tmp_path / "prior" / f"{file}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Problem, match=f"{file}.safetensors is damaged"):
        load_prior(tmp_path / "prior")
    path.unlink()
    with pytest.raises(Problem, match=f"{file}.safetensors is missing"):
        load_prior(tmp_path / "prior")


def test_a_prior_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"there is no .*prior.json"):
        load_prior(tmp_path)


def test_a_manifest_of_other_widths_is_refused(tmp_path: Path) -> None:
    prior = write(tmp_path / "prior", tiny_base(tmp_path / "base"))
    path = tmp_path / "prior" / "prior.json"
    told = json.loads(path.read_text()) | {"projector_hidden": 12}
    path.write_text(json.dumps(told))
    with pytest.raises(Problem, match=r"projector.safetensors' does not fit the manifest"):
        _ = load_prior(prior.directory).projector


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"family": "sdxl"}, "family 'sdxl'"),
        ({"cross_attention_dim": 2048}, "tokens of the width 2048"),
        ({"n_cross_attentions": 70}, "70 cross-attentions"),
    ],
)
def test_a_base_of_another_kind_is_refused(tmp_path: Path, changes: dict, said: str) -> None:
    base = tiny_base(tmp_path / "base")
    check_fits(write(tmp_path / "prior", base), base)
    with pytest.raises(Problem, match=said):
        check_fits(write(tmp_path / "prior", base, **changes), base)


def test_a_bundle_of_another_space_is_refused(tmp_path: Path) -> None:
    from types import SimpleNamespace

    prior = write(tmp_path / "prior", tiny_base(tmp_path / "base"))
    same = SimpleNamespace(space=prior.manifest.space, embedding_dim=DIM)
    check_bundle(prior, same)
    with pytest.raises(Problem, match="paints from the embedding space"):
        check_bundle(prior, SimpleNamespace(space="f" * 64, embedding_dim=DIM))
    with pytest.raises(Problem, match=f"embeddings of {DIM} numbers, the bundle's have 99"):
        check_bundle(prior, SimpleNamespace(space=prior.manifest.space, embedding_dim=99))


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    write(tmp_path / "prior", base)
    before = (tmp_path / "prior" / "prior.json").read_text()
    adapter = tiny_adapter(base.unet)
    adapter["image_proj"]["proj.bias"][0] = np.nan
    prior = load_prior(tmp_path / "prior")
    with pytest.raises(Problem, match="not finite"):
        save_prior(prior.directory, *parts_of(prior), adapter)
    adapter["image_proj"]["proj.bias"][0] = 1e5  # more than half precision holds
    with pytest.raises(Problem, match="not finite"):
        save_prior(prior.directory, *parts_of(prior), adapter, torch.float16)
    assert (tmp_path / "prior" / "prior.json").read_text() == before


def parts_of(prior: Prior) -> tuple:
    return prior.manifest, prior.hvf, prior.projector


@pytest.mark.parametrize("part", ["hvf", "projector", "adapter"])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, part: str) -> None:
    write(tmp_path / "prior", tiny_base(tmp_path / "base"))
    name = {"adapter": "ip_adapter"}.get(part, part) + ".safetensors"
    path = tmp_path / "prior" / name
    tensors = load_file(path)
    tensors[min(tensors)].view(-1)[0] = np.nan
    save_file(tensors, path)
    manifest = tmp_path / "prior" / "prior.json"
    told = json.loads(manifest.read_text())
    told["files"][name] = file_sha256(path)
    manifest.write_text(json.dumps(told))
    with pytest.raises(Problem, match=f"{min(tensors)} of .*{name}' has values that are not"):
        getattr(load_prior(tmp_path / "prior"), part)
