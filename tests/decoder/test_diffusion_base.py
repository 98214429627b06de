"""Loading diffusion models: from folders and from a hub, whole or with one sentence."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

import hvf_core.hub.load
from decoder.painting import base as diffusion_base
from decoder.painting.base import empty_prompt_file, load_base
from decoder.painting.spec import PRESETS, BaseSpec, WeightFile, read_base_spec
from hvf_core.problem import Problem
from offline_train.prior.empty_prompt import encode_empty_prompt
from tests.fake_hub import FakeHub, fake_hub
from tests.tiny_sdxl import WIDTH, tiny_unet, write_text_encoders, write_tiny_base

pytestmark = pytest.mark.slow

UNET = "unet/diffusion_pytorch_model.safetensors"
WHOLE = "copy the whole folder again"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_base(tmp_path / "base")


def test_a_spec_is_a_preset_or_in_a_folder_whose_paths_are_its_own(folder: Path) -> None:
    assert read_base_spec("sdxl-turbo") is PRESETS["sdxl-turbo"]
    spec = read_base_spec(folder)
    assert (spec.source, spec.tiny_vae) == (str(folder), str(folder / "tiny_vae"))
    assert read_base_spec(folder / "base.json") == spec


def test_a_base_that_is_neither_is_refused_and_the_presets_are_named() -> None:
    with pytest.raises(Problem, match=r"'nonesuch' is neither a preset \(sdxl-base, .*hyper-sd-4"):
        read_base_spec("nonesuch")


def test_a_spec_that_is_not_valid_is_told_with_its_place(folder: Path) -> None:
    told = json.loads((folder / "base.json").read_text()) | {"steps": 0}
    (folder / "base.json").write_text(json.dumps(told))
    with pytest.raises(Problem, match="not valid at steps"):
        read_base_spec(folder)


def test_a_loaded_base_is_frozen_in_the_precision_asked_for_and_nothing_is_printed(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = load_base(read_base_spec(folder), dtype=torch.float16)
    for network in (base.unet, base.vae, base.tiny_vae):
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())
    assert (base.unet.dtype, base.tiny_vae.dtype) == (torch.float16, torch.float16)
    assert base.prompt_embeds.dtype == base.pooled_prompt_embeds.dtype == torch.float16
    assert (base.n_cross_attentions, base.cross_attention_dim) == (8, WIDTH)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("dtype", "force_upcast", "expected"),
    [
        (torch.float16, True, torch.float32),
        (torch.float16, False, torch.float16),
        (torch.bfloat16, True, torch.bfloat16),
    ],
)
def test_a_vae_is_in_float32_only_where_it_would_overflow(
    folder: Path, dtype: torch.dtype, force_upcast: bool, expected: torch.dtype
) -> None:
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"force_upcast": force_upcast}))
    assert load_base(read_base_spec(folder), dtype=dtype).vae.dtype == expected


def test_a_unet_of_its_own_takes_the_place_of_that_in_the_folder(folder: Path) -> None:
    torch.manual_seed(5)
    other = tiny_unet()
    save_file(other.state_dict(), folder / "other.safetensors")
    (folder / UNET).unlink()  # which is not needed then
    unet = WeightFile(source=str(folder), file="other.safetensors")
    base = load_base(read_base_spec(folder).model_copy(update={"unet": unet}), dtype=torch.bfloat16)
    assert not base.unet.training
    for name, tensor in base.unet.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name].bfloat16())


def lora(prefix: str = "unet.") -> dict[str, torch.Tensor]:
    """For two layers of the tiny UNet, as Hyper-SD and LCM have it for many more."""
    rng = torch.Generator().manual_seed(3)
    weights = {}
    for name, module in tiny_unet().named_modules():
        if name.endswith(("attn1.to_q", "attn2.to_out.0")) and "mid_block" in name:
            for part, shape in (
                ("down", (2, module.in_features)),
                ("up", (module.out_features, 2)),
            ):
                key = f"{prefix}{name}.lora_{'A' if part == 'down' else 'B'}.weight"
                weights[key] = torch.randn(shape, generator=rng)
    assert len(weights) >= 4
    return weights


def with_lora(folder: Path, weights: dict[str, torch.Tensor]) -> BaseSpec:
    save_file(weights, folder / "lora.safetensors")
    told = {"lora": WeightFile(source=str(folder), file="lora.safetensors")}
    return read_base_spec(folder).model_copy(update=told)


def test_a_lora_is_fused_as_stock_fuses_it_and_leaves_plain_layers(folder: Path) -> None:
    plain = load_base(read_base_spec(folder))
    fused = load_base(with_lora(folder, lora()))
    pipe = diffusers.StableDiffusionXLPipeline(
        plain.vae, None, None, None, None, plain.unet, plain.scheduler, add_watermarker=False
    )
    before = {name: tensor.clone() for name, tensor in plain.unet.state_dict().items()}
    pipe.load_lora_weights(str(folder), weight_name="lora.safetensors")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    after = plain.unet.state_dict()
    found = fused.unet.state_dict()
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], after[name]) for name in found)
    assert sum(not torch.equal(found[name], before[name]) for name in found) == len(lora()) // 2


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (lora(prefix="text_encoder."), "no weights for a UNet"),
        ({name: tensor[:, :-1].contiguous() for name, tensor in lora().items()}, "size mismatch"),
    ],
)
def test_a_lora_of_something_else_is_refused(
    folder: Path, weights: dict[str, torch.Tensor], sentence: str
) -> None:
    with pytest.raises(Problem, match=f"the LoRA of the diffusion model 'tiny'.*{sentence}"):
        load_base(with_lora(folder, weights))


def test_a_lora_without_what_reads_it_is_told_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = with_lora(folder, lora())
    monkeypatch.setattr(diffusion_base.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Problem, match=r"peft and transformers: run `pip install .*\[sdxl\]"):
        load_base(spec)


def _rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / UNET)
    change(tensors)
    save_file(tensors, folder / UNET)


def _reconfigured(folder: Path, **more: object) -> None:
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | more))


_NAME = "conv_in.weight"
_FAULTS = {
    "no UNet": (lambda f: (f / UNET).unlink(), f"the UNet of .*'tiny'.* no file named.*{WHOLE}"),
    "cut off": (
        lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:999]),
        f"the UNet of .*'tiny'.*Unable to load weights.*{WHOLE}",
    ),
    "a tensor missing": (
        lambda f: _rewritten(f, lambda tensors: tensors.pop(_NAME)),
        f"1 tensors are missing, such as {_NAME}.*{WHOLE}",
    ),
    "another shape": (
        lambda f: _rewritten(f, lambda tensors: tensors.update({_NAME: torch.zeros(8, 4, 3, 3)})),
        f"{_NAME} expected shape.*{WHOLE}",
    ),
    "no configuration": (lambda f: (f / "vae" / "config.json").unlink(), f"the VAE of .*{WHOLE}"),
    "configuration cut off": (
        lambda f: (f / "vae" / "config.json").write_text('{"act_fn":'),
        f"the VAE of .*{WHOLE}",
    ),
    "no scheduler": (
        lambda f: (f / "scheduler" / "scheduler_config.json").unlink(),
        f"the scheduler of .*{WHOLE}",
    ),
    "no empty prompt": (
        lambda f: (f / "empty_prompt.safetensors").unlink(),
        "the empty prompt of 'tiny' is not in .*offline_train empty-prompt --base tiny",
    ),
    "an empty prompt of another model": (
        lambda f: save_file(
            {"prompt_embeds": torch.zeros(1, 7, 9), "pooled_prompt_embeds": torch.zeros(1, 32)},
            f / "empty_prompt.safetensors",
        ),
        r"shapes \(1, 7, 9\) and \(1, 32\), its UNet takes \(1, tokens, 64\) and \(1, 32\)",
    ),
    "not of SDXL's kind": (
        lambda f: (
            _reconfigured(f, addition_embed_type=None, projection_class_embeddings_input_dim=None),
            _rewritten(
                f, lambda tensors: [tensors.pop(n) for n in list(tensors) if "add_emb" in n]
            ),
        ),
        "takes no picture sizes and pooled prompt",
    ),
    "for inpainting": (
        lambda f: (
            _reconfigured(f, in_channels=9),
            _rewritten(f, lambda tensors: tensors.update({_NAME: torch.zeros(32, 9, 3, 3)})),
        ),
        "takes 9 channels, its VAE has 4",
    ),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_what_is_missing_damaged_or_of_another_model_is_told_in_one_sentence(
    folder: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HVF_LIVE_CACHE", str(folder / "cache"))
    spoil, sentence = _FAULTS[fault]
    spoil(folder)
    with pytest.raises(Problem, match=sentence) as told:
        load_base(read_base_spec(folder))
    assert "\n" not in str(told.value)


def test_a_folder_that_is_not_there_is_told(folder: Path) -> None:
    spec = read_base_spec(folder)
    for place, part in (("source", "the scheduler"), ("tiny_vae", "the tiny VAE")):
        with pytest.raises(Problem, match=f"no folder '/none' .*'tiny' or {part}"):
            load_base(spec.model_copy(update={place: "/none"}))


REPO = "anna/tiny"


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("HVF_LIVE_CACHE", str(tmp_path / "cache"))
    with fake_hub(monkeypatch, tmp_path / "hub") as hub:
        hub.put(REPO, folder)
        yield hub


def on_hub(folder: Path, repo: str = REPO) -> BaseSpec:
    """The spec of the same model as a preset has it: all but the prompt from the hub."""
    told = {"source": repo, "vae": repo, "vae_subfolder": "vae", "tiny_vae": None}
    told |= {"unet": WeightFile(source=repo, file=UNET)}
    told |= {"empty_prompt": str(folder / "empty_prompt.safetensors")}
    return read_base_spec(folder).model_copy(update=told)


def test_a_model_comes_from_the_hub_once_and_then_from_its_cache(
    folder: Path, hub: FakeHub
) -> None:
    spec = on_hub(folder)
    first = load_base(spec)
    n_asked = hub.n_asked
    assert n_asked > 0
    again = load_base(spec)
    assert hub.n_asked == n_asked
    for name, tensor in load_base(read_base_spec(folder)).unet.state_dict().items():
        assert torch.equal(first.unet.state_dict()[name], tensor)
        assert torch.equal(again.unet.state_dict()[name], tensor)


@pytest.fixture
def _no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to itself, huggingface_hub pauses and tries again for 23 s."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", pytest.fail)


@pytest.mark.usefixtures("_no_second_try")
def test_a_hub_that_is_not_reached_is_told_at_once(folder: Path, hub: FakeHub) -> None:
    hub.vanish()
    with pytest.raises(Problem, match=f"this machine and {hub.endpoint} cannot be reached"):
        load_base(on_hub(folder))


@pytest.mark.usefixtures("_no_second_try")
def test_a_hub_that_does_not_answer_is_told_after_its_time_out(
    folder: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.speaks.clear()
    monkeypatch.setattr(hvf_core.hub.load, "PATIENCE_S", 0.2)
    with pytest.raises(Problem, match=r"cannot be reached.*fetch FOLDER/base\.json --to DIR"):
        load_base(on_hub(folder))


def test_a_repository_that_is_not_there_is_told(folder: Path, hub: FakeHub) -> None:
    with pytest.raises(Problem, match=r"from 'anna/other'.*check its name and your access"):
        load_base(on_hub(folder, "anna/other"))


def test_without_the_network_it_is_not_asked(
    folder: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Problem, match="HF_HUB_OFFLINE is set"):
        load_base(on_hub(folder))
    assert hub.n_asked == 0


def test_the_empty_prompt_is_encoded_as_stock_encodes_it_and_found_again(folder: Path) -> None:
    encoders = write_text_encoders(folder)
    spec = read_base_spec(folder)
    assert encode_empty_prompt(spec) == {
        "prompt_embeds": (1, 77, WIDTH),
        "pooled_prompt_embeds": (1, 32),
    }
    base = load_base(spec)
    tokenizers = [CLIPTokenizer.from_pretrained(folder / f"tokenizer{s}") for s in ("", "_2")]
    pipe = diffusers.StableDiffusionXLPipeline(
        base.vae, *encoders, *tokenizers, base.unet, base.scheduler, add_watermarker=False
    )
    with torch.no_grad():
        prompt, _, pooled, _ = pipe.encode_prompt("", do_classifier_free_guidance=False)
    assert torch.equal(base.prompt_embeds, prompt.half().float())
    assert torch.equal(base.pooled_prompt_embeds, pooled.half().float())


def test_an_empty_prompt_of_the_hubs_model_is_kept_for_its_family(
    folder: Path, hub: FakeHub, tmp_path: Path
) -> None:
    write_text_encoders(folder)
    hub.put(REPO, folder)
    spec = on_hub(folder).model_copy(update={"empty_prompt": None})
    with pytest.raises(Problem, match="make it once"):
        load_base(spec)
    encode_empty_prompt(spec)
    assert empty_prompt_file(spec).is_relative_to(tmp_path / "cache")
    assert load_base(spec).prompt_embeds.shape == (1, 77, WIDTH)


def test_text_encoders_that_are_missing_are_told(folder: Path) -> None:
    with pytest.raises(Problem, match=f"the text encoders of .*'tiny'.*{WHOLE}"):
        encode_empty_prompt(read_base_spec(folder))
