"""How an image encoder is said in a few words: `timm:vit_base_patch14_dinov2.lvd142m:9:mean`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hvf_core.problem import Problem
from hvf_core.specs import is_path

FORMS = (
    "open_clip:ARCHITECTURE:WEIGHTS",
    "diffusers-vae:OWNER/NAME or OWNER/NAME/SUBFOLDER",
    "timm:MODEL or timm:MODEL:LAYER",
    "classifier@FILE",
    "MODULE:FUNCTION",
)
_KINDS = ("open_clip", "timm", "diffusers-vae", "classifier")
_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
_POOLS = ("cls", "mean", "patches")


def fields_of(text: str) -> dict[str, object]:
    """The fields of an `EncoderSpec` that a text such as one of `FORMS` says.

    After the model follow words, as `words_of` reads them; `@` and a path at the end say where its
    weights are.

    Raises:
        Problem: a word is missing, or says none of these.
    """
    said, _, file = text.partition("@")
    words, file = said.split(":"), file and local(file)
    match words if all(words) else []:
        case ["open_clip", architecture, *rest] if file:
            named, fields = [architecture], {"architecture": architecture, "source": file}
        case ["open_clip", architecture, tag, *rest]:
            named, fields = [architecture, tag], {"architecture": architecture, "source": tag}
        case ["timm", model, *rest]:
            named, fields = [model], {"architecture": model, "source": file or f"timm/{model}"}
        case ["diffusers-vae" | "classifier", *rest] if file:
            named, fields = [Path(file).stem], {"source": file}
        case ["diffusers-vae" | "classifier", source, *rest] if is_path(source):
            named, fields = [Path(source).stem], {"source": local(source)}
        case ["diffusers-vae", source, *rest] if "/" in source:
            owner, name, *folder = source.split("/", 2)
            named, fields = [(folder or [name])[0]], {"source": f"{owner}/{name}"}
            fields |= {"subfolder": folder[0]} if folder else {}
        case [module, function, *rest] if module not in _KINDS and not file:
            named = [module.rpartition(".")[2], function]
            fields, words = {"source": f"{module}:{function}"}, ["function"]
        case _:
            raise Problem(f"image encoder '{text}' cannot be understood: say {', '.join(FORMS)}")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join([*named, *rest]))
    return {"name": name, "kind": words[0], **fields, **words_of(rest, text)}


def words_of(words: Sequence[str], text: str) -> dict[str, object]:
    """What words of a text say: layer (9), pooling (cls), size (384px), bf16, blur (blur51)."""
    fields: dict[str, object] = {}
    for word in words:
        if word.isdecimal():
            fields["layer"] = int(word)
        elif word.removesuffix("px").isdecimal():
            fields["size_px"] = int(word.removesuffix("px"))
        elif word.removeprefix("blur").isdecimal():
            fields["blur_px"] = int(word.removeprefix("blur"))
        elif word in _DTYPES:
            fields["dtype"] = _DTYPES[word]
        elif word in _POOLS:
            fields["pool"] = word
        else:
            raise Problem(
                f"image encoder '{text}': '{word}' is no layer (9), pooling ({', '.join(_POOLS)}), "
                f"size (384px), type ({', '.join(_DTYPES)}) or blur (blur51): correct it, or say "
                f"{', '.join(FORMS)}"
            )
    return fields


def local(path: str) -> str:
    """A path that a person gave, as sources have it: absolute."""
    return str(Path(path).expanduser().resolve())


def _on_hub(source: str) -> Mapping[str, object]:
    owner, _, rest = source.partition("/")
    name, _, subfolder = rest.partition("/")
    return {"source": f"{owner}/{name}"} | ({"subfolder": subfolder} if subfolder else {})
