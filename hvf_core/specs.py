"""Specs: what there is to choose from, such as encoders and diffusion models, as JSON lists."""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError

from hvf_core.problem import Problem

T = TypeVar("T")
Spec = TypeVar("Spec", bound=BaseModel)


class Frozen(BaseModel):
    """Data that does not change and has no unknown key: the base of specs, records, manifests."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_spec(file: Path, kind: type[T], what: str, context: object = None) -> T:
    """Reads a JSON file of a kind that pydantic knows; a `Problem` calls it `what`.

    Args:
        context: for validators that ask for one.
    """
    try:
        return TypeAdapter(kind).validate_json(file.read_bytes(), context=context)
    except OSError as fault:
        raise Problem(
            f"{what} '{file}' cannot be read ({fault.strerror}): give the path of a JSON file"
        ) from None
    except ValidationError as error:
        raise Problem(f"{what} '{file}' is not valid {first_fault(error)}: mend it there") from None


def read_presets(file: Path, kind: type[Spec]) -> dict[str, Spec]:
    """Specs that come with the program, by name, from TOML; the table `common` is part of each."""
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    common = tables.pop("common", {})
    return {
        name: kind.model_validate({"name": name, **common, **table})
        for name, table in tables.items()
    }


def first_fault(error: ValidationError) -> str:
    """Where data is not valid first, and why: `at heads.0 (input should be a valid integer)`."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "its top level"
    return f"at {place} ({first['msg'].lower()})"


def is_path(source: str) -> bool:
    """Whether a source of weights is a path, absolute or with a `.` first, or a name on a hub."""
    return source.startswith((".", "/")) or Path(source).is_absolute()  # which may have a drive


def source_from(folder: Path, source: str) -> str:
    """A source whose relative path, if it is one, has been taken from a folder."""
    return str((folder / source).resolve()) if source.startswith(".") else source


@contextmanager
def loading(what: str, source: str, way_out: str, *faults: type[Exception]) -> Iterator[None]:
    """Tells by a `Problem` what cannot be loaded from where, why, and the way out.

    `faults` can be raised besides what reading and filling a network commonly ends in.
    """
    usual = (OSError, RuntimeError, ValueError, KeyError, SafetensorError)
    try:
        yield
    except usual + faults as fault:
        reason = " ".join(str(fault).split())[:200]
        raise Problem(f"{what} cannot be loaded from '{source}' ({reason}): {way_out}") from fault
