"""Fetching weights, from a look-alike of the hub, by the real client; and loading what came."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

import hvf_core.hub.download
import hvf_core.hub.load
from decoder.painting.base import load_base
from decoder.painting.spec import PRESETS, BaseSpec
from hvf_core.hub.load import Source, as_size, chosen, file_at, silence_of, size_of
from hvf_core.options import TRAIN
from hvf_core.problem import Problem
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs
from offline_train.hub.fetch import fetch, is_here
from offline_train.hub.offers import offers, sources_named
from offline_train.prior.empty_prompt import encode_empty_prompt
from tests.calling import call
from tests.fake_hub import COMMIT, FakeHub, fake_hub
from tests.full_sdxl import full_base
from tests.tiny_sdxl import tiny_vae, write_text_encoders, write_tiny_base

pytestmark = pytest.mark.slow

REPO = "anna/net"
WEIGHTS = bytes(range(256)) * 4000
FILES = {"model.safetensors": WEIGHTS, "config.json": b"{}", "model.bin": b"pickle"}
SOURCE = Source(place=REPO, files=("model.safetensors|model.bin", "*.json"))


def silent(name: str, n_bytes: int, total: int) -> None:
    pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("HVF_LIVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(hvf_core.hub.download, "PAUSE_S", 0)
    with fake_hub(monkeypatch, tmp_path / "own") as hub:
        hub.repositories[REPO] = dict(FILES)
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "disk" / "hub"


def snapshot(cache: Path, repository: str = REPO) -> dict[str, bytes]:
    folder = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / COMMIT
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


# --- what comes, and where it lies ---------------------------------------------------------------


def test_what_is_fetched_lies_where_the_hub_s_client_looks(hub: FakeHub, cache: Path) -> None:
    told: list[tuple[str, int, int]] = []
    assert not is_here([SOURCE], cache)
    fetch([SOURCE], cache, lambda *one: told.append(one))
    assert is_here([SOURCE], cache)
    assert snapshot(cache) == {name: FILES[name] for name in ("model.safetensors", "config.json")}
    assert told[-1][1:] == (len(WEIGHTS) + 2, len(WEIGHTS) + 2)
    assert not any(path.is_symlink() for path in cache.rglob("*"))
    hub.vanish()
    found = huggingface_hub.hf_hub_download(
        REPO, "model.safetensors", cache_dir=cache, local_files_only=True
    )
    assert Path(found).read_bytes() == WEIGHTS


def test_what_is_here_is_not_asked_for_again(hub: FakeHub, cache: Path) -> None:
    fetch([SOURCE], cache, silent)
    hub.asked.clear()
    hub.refused["/"] = (500, "")
    fetch([SOURCE], cache, silent)
    assert hub.asked == []


def test_what_a_later_source_lacks_is_added_of_the_same_commit(hub: FakeHub, cache: Path) -> None:
    fetch([Source(place=REPO, files=("config.json",))], cache, silent)
    fetch([SOURCE], cache, silent)
    assert [name for name, _ in hub.asked] == ["config.json", "model.safetensors"]
    assert hub.listed == [REPO, f"{REPO}/revision/{COMMIT}"]
    assert set(snapshot(cache)) == {"config.json", "model.safetensors"}


def test_a_pickle_is_for_where_there_is_nothing_else(hub: FakeHub, cache: Path) -> None:
    del hub.repositories[REPO]["model.safetensors"]
    fetch([SOURCE], cache, silent)
    assert set(snapshot(cache)) == {"config.json", "model.bin"}


def test_files_of_the_same_bytes_each_have_their_place(hub: FakeHub, cache: Path) -> None:
    hub.repositories[REPO] = {"tokenizer/a.txt": b"same", "tokenizer_2/a.txt": b"same"}
    fetch([Source(place=REPO, files=("tokenizer/*", "tokenizer_2/*"))], cache, silent)
    assert snapshot(cache) == hub.repositories[REPO]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.safetensors|a.bin", ["a.safetensors"]),
        ("b.safetensors|a.bin", ["a.bin"]),
        ("unet/*.json", ["unet/x.json"]),
        ("c.bin", []),
    ],
)
def test_of_alternatives_the_first_that_is_there_counts(pattern: str, expected: list[str]) -> None:
    assert chosen(["a.bin", "a.safetensors", "unet/x.json"], pattern) == expected


# --- what breaks off, and what is wrong ----------------------------------------------------------


def test_a_connection_that_breaks_is_gone_on_with(hub: FakeHub, cache: Path) -> None:
    hub.breaks_after = [300_000, 400_000]
    fetch([SOURCE], cache, silent)
    assert snapshot(cache)["model.safetensors"] == WEIGHTS
    begun = [first for name, first in hub.asked if name == "model.safetensors"]
    assert begun[0] == 0
    assert sorted(begun) == begun
    assert 0 < begun[1] <= 300_000 < begun[2] <= 700_000


def test_a_later_command_goes_on_where_this_one_gave_up(hub: FakeHub, cache: Path) -> None:
    hub.breaks_after = [300_000, *[0] * hvf_core.hub.download.TRIES]
    with pytest.raises(Problem, match=r"broke off after 300 kB .*the same command again"):
        fetch([SOURCE], cache, silent)
    assert not is_here([SOURCE], cache)  # nothing is there by half
    assert snapshot(cache) == {}
    hub.breaks_after = []
    fetch([SOURCE], cache, silent)
    assert snapshot(cache)["model.safetensors"] == WEIGHTS
    assert hub.asked[-2][1] > 200_000


def test_a_server_without_ranges_begins_anew(hub: FakeHub, cache: Path) -> None:
    hub.takes_ranges, hub.breaks_after = False, [300_000]
    fetch([SOURCE], cache, silent)
    assert snapshot(cache)["model.safetensors"] == WEIGHTS


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_is_not_what_the_hub_says_it_is_does_not_stay(
    hub: FakeHub, cache: Path, name: str
) -> None:
    hub.spoilt = {name}
    with pytest.raises(Problem, match=rf"{name}' is damaged \(its checksum is"):
        fetch([SOURCE], cache, silent)
    assert snapshot(cache) == {}
    hub.spoilt = set()
    fetch([SOURCE], cache, silent)
    assert snapshot(cache)[name] == FILES[name]


@pytest.mark.parametrize(
    ("part", "status", "code", "sentence"),
    [
        ("/api/", 401, "RepoNotFound", f"there is no repository '{REPO}' on the hub"),
        ("/api/", 403, "GatedRepo", "ask for access on its page"),
        ("/api/", 401, "", "does not know your token"),
        ("/api/", 503, "", "answers 503"),
        ("/resolve/", 401, "", "answers 401.*check your access"),
        ("/resolve/", 404, "EntryNotFound", "answers 404"),
    ],
)
def test_what_is_refused_is_told(
    hub: FakeHub, cache: Path, part: str, status: int, code: str, sentence: str
) -> None:
    hub.refused[part] = (status, code)
    with pytest.raises(Problem, match=sentence) as told:
        fetch([SOURCE], cache, silent)
    assert "\n" not in str(told.value)
    assert not is_here([SOURCE], cache)


def test_a_file_that_a_repository_lacks_is_told(hub: FakeHub, cache: Path) -> None:
    lacking = Source(place=REPO, files=("vae/model.safetensors|vae/model.bin",))
    with pytest.raises(Problem, match=r"has no vae/model\.safetensors or vae/model\.bin"):
        fetch([lacking], cache, silent)


def test_a_disk_without_room_is_told_before(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    free = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
    with pytest.raises(Problem, match=r"room for 1 MB, and 1 MB are to be fetched"):
        fetch([SOURCE], cache, silent)
    assert hub.asked == []


# --- files at addresses --------------------------------------------------------------------------


@pytest.fixture
def address(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> str:
    """That of a checkpoint whose name has the beginning of its SHA-256."""
    name = f"/net-{hashlib.sha256(WEIGHTS).hexdigest()[:8]}.pth"
    hub.files[name] = WEIGHTS
    monkeypatch.setattr("offline_train.hub.fetch._is_address", lambda place: "://" in place)
    return hub.endpoint + name


def test_a_file_at_an_address_is_found_in_both_caches(
    hub: FakeHub, address: str, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    own = file_at("a net", address, [], "")
    assert own.read_bytes() == WEIGHTS
    assert own == file_at("a net", address, [], "")
    own.unlink()
    hub.breaks_after = [100_000]
    fetch([Source(place=address)], cache, silent)
    hub.asked.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    found = file_at("a net", address, [], "")
    assert (found.parent, found.read_bytes()) == (cache / "checkpoints", WEIGHTS)
    fetch([Source(place=address)], cache, silent)
    assert hub.asked == []


def test_a_file_at_an_address_is_what_its_name_says(hub: FakeHub, address: str) -> None:
    hub.spoilt = {".pth"}
    with pytest.raises(Problem, match="is damaged"):
        file_at("a net", address, [], "")


# --- without a network ---------------------------------------------------------------------------


def test_a_machine_without_a_network_is_told_so_at_once(
    hub: FakeHub, cache: Path, address: str
) -> None:
    hub.vanish()
    for source in (SOURCE, Source(place=address)):
        with pytest.raises(Problem, match=r"cannot be reached .*try again where there is"):
            fetch([source], cache, silent)
    sources = [Source(place=address, bytes=2_500_000_000)]
    with pytest.raises(Problem, match=r"fetch nets --to DIR` \(2\.5 GB\), copy DIR here, and set"):
        file_at("a net", address, sources, "nets")
    with pytest.raises(Problem, match="connect to the network once"):
        file_at("a net", address, [], "")


def test_names_that_are_looked_up_for_ever_are_waited_for_a_moment(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hvf_core.hub.load, "PATIENCE_S", 0.05)
    asked = hvf_core.hub.load.threading.Event()
    monkeypatch.setattr(
        "huggingface_hub.utils._http.httpx2.Client.head", lambda *args, **more: asked.wait(5)
    )
    assert "no answer in 0.05 s" in str(silence_of(hub.endpoint))
    asked.set()


# --- what there is -------------------------------------------------------------------------------


def test_everything_offered_says_how_large_it_is_and_under_what_licence() -> None:
    found = list(offers())
    assert len({offer.name for offer in found}) == len(found)
    for offer in found:
        assert size_of(offer.sources), offer.name
        assert all(source.licence and source.place for source in offer.sources)
        assert sources_named(offer.name) == offer.sources


def test_what_there_is_is_said_without_what_takes_long_to_import() -> None:
    code = (
        "import sys; from offline_train.hub.offers import offers; list(offers()); "
        "print({'torch', 'timm', 'open_clip', 'diffusers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_sizes_of_diffusion_models_are_those_of_their_parameters() -> None:
    base = full_base(PRESETS["sdxl-base"], torch.float32)
    for part, source in (("vae", 1), ("tiny_vae", 2)):
        n_bytes = sum(t.nbytes for t in getattr(base, part).state_dict().values())
        assert PRESETS["sdxl-base"].sources[source].bytes == pytest.approx(n_bytes, rel=2e-3)
    n_bytes = sum(tensor.nbytes for tensor in base.unet.state_dict().values())
    text_encoders = 492_265_168 + 2_778_702_264
    assert PRESETS["sdxl-base"].sources[0].bytes - text_encoders == pytest.approx(n_bytes, rel=1e-4)
    half = PRESETS["sdxl-lightning-4"].sources[-1].bytes
    assert half == pytest.approx(n_bytes / 2, rel=1e-4)


# --- carried over to a machine without a network --------------------------------------------------


@pytest.mark.parametrize("is_old", [False, True], ids=["", "vocabulary"])
def test_a_diffusion_model_that_was_carried_over_paints(
    hub: FakeHub, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    folder = write_tiny_base(tmp_path / "base")
    write_text_encoders(folder)
    if is_old:  # as SDXL's own repositories have it
        words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "!": 2, "a</w>": 3}
        for tokenizer in folder.glob("tokenizer*"):
            (tokenizer / "tokenizer.json").unlink()
            (tokenizer / "vocab.json").write_text(json.dumps(words))
            (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    hub.put("anna/tiny", folder)
    hub.put("anna/tiny-vae", folder / "tiny_vae")
    told = json.loads((folder / "base.json").read_text())
    told |= {"source": "anna/tiny", "tiny_vae": "anna/tiny-vae"}
    (folder / "base.json").write_text(json.dumps(told))
    fetch(sources_named(str(folder)), cache, silent)
    hub.vanish()
    spec = BaseSpec(**told)
    with pytest.raises(Problem, match=r"fetch FOLDER/base\.json --to DIR"):
        load_base(spec)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    with pytest.raises(Problem, match="make it once"):
        load_base(spec)
    encode_empty_prompt(spec)
    assert load_base(spec).tiny_vae is not None


def test_image_encoders_that_were_carried_over_see(
    hub: FakeHub, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real loaders of timm, open_clip and diffusers, on networks that nobody has trained."""
    (tmp_path / "timm").mkdir()
    network = timm.create_model("test_vit", num_classes=0)
    save_file(network.state_dict(), tmp_path / "timm" / "model.safetensors")
    (tmp_path / "clip").mkdir()
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "tiny-carried.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-carried.json")
    tags = {"drawn": {"hf_hub": "anna/clip/"}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-carried", tags)
    clip = open_clip.create_model("tiny-carried").state_dict()
    save_file(clip, tmp_path / "clip" / "open_clip_model.safetensors")
    tiny_vae().save_pretrained(tmp_path / "pipeline" / "vae")
    for name in ("timm", "clip", "pipeline"):
        hub.put(f"anna/{name}", tmp_path / name)
    listed = [
        {"name": "t", "kind": "timm", "architecture": "test_vit", "source": "anna/timm"},
        {"name": "c", "kind": "open_clip", "architecture": "tiny-carried", "source": "drawn"},
        {"name": "v", "kind": "diffusers-vae", "source": "anna/pipeline", "subfolder": "vae"},
    ]
    file = tmp_path / "hvf.json"
    file.write_text(json.dumps(listed))
    fetch(sources_named(str(file)), cache, silent)
    hub.vanish()
    specs = read_specs(file)
    for spec in specs:
        with pytest.raises(Problem, match="there is no copy of image encoder"):
            load_encoder(spec)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    assert [load_encoder(spec).spec.dim for spec in specs] == [64, 24, 1024]


def test_the_command_says_what_to_do_on_the_other_machine(hub: FakeHub, tmp_path: Path) -> None:
    place = PRESETS["sdxl-lcm"]
    for source in place.sources:
        names = [f.replace("*", "x") for f in source.files]
        hub.repositories.setdefault(source.place, {}).update(dict.fromkeys(names, b"{}"))
    told = call("fetch", "sdxl-lcm", "--to", tmp_path / "disk", module="offline_train")
    assert told.code == 0, told.err
    assert "from latent-consistency/lcm-lora-sdxl (CreativeML Open RAIL++-M)" in told.out
    assert f"copy '{tmp_path / 'disk'}' there and begin with `export HF_HOME=" in told.out
    assert f"then, once: {TRAIN} empty-prompt --base sdxl-lcm" in told.out
    assert is_here(place.sources, tmp_path / "disk" / "hub")
    rows = call("fetch", "--to", tmp_path / "disk", module="offline_train").out.splitlines()
    here = {line.split()[0] for line in rows if " yes " in line}
    assert here == {"sdxl-lcm", "sdxl-base", "SDXL-VAE"} - {"SDXL-VAE"}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nothing"], 1, "'nothing' is nothing that can be fetched"),
        (["anna/bundle"], 2, "into a folder that is its own: give --to"),
        (["anna/bundle", "RN50", "--to", "there"], 2, "a bundle is fetched alone"),
        (["RN50", "--revision", "v1", "--to", "there"], 2, "--revision is for bundles"),
    ],
)
def test_what_cannot_be_asked_for(arguments: list[str], code: int, sentence: str) -> None:
    done = call("fetch", *arguments, module="offline_train")
    assert done.code == code
    assert sentence in " ".join(done.err.replace("│", " ").split())


@pytest.mark.parametrize("what", ["anna/bundle", "a/b/c"])
def test_what_has_an_owner_can_only_be_a_bundle(what: str) -> None:
    assert sources_named(what) is None


def test_sizes_are_those_of_disks() -> None:
    sizes = [as_size(n) for n in (1_710_466_052, 9_793_292, 2048)]
    assert sizes == ["1.7 GB", "10 MB", "2 kB"]
    assert size_of([Source(place="a", bytes=5_000_000), Source(place="b")]) == ""
