"""The units that EDF, BDF and BrainVision name, as they spell them, and what MNE makes of each.

MNE takes a spelling that it does not know for volts in the first two, and for no EEG in the third.
"""

import re
from pathlib import Path

from stream.sources.edf_records import ANNOTATIONS, text_columns

_VOLTS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "µV": 1e-6}  # MNE's factors; of all others 1
_EDF = _VOLTS | {"\u03bcV": 1e-6, "\x83\xcaV": 1e-6}
_BRAINVISION = _VOLTS | {"nV": 1e-9, "µS": 1e-6, "uS": 1e-6}


def file_units(path: Path) -> list[tuple[str, float]]:
    """Of each channel in the order of the file: its unit, and MNE's factor; else nothing."""
    suffix = path.suffix.lower()
    if suffix in (".edf", ".bdf"):
        labels, units = (text_columns(path, name) for name in ("label", "unit"))
        told = [unit for label, unit in zip(labels, units, strict=True) if label not in ANNOTATIONS]
        return [(_spelt(unit), _EDF.get(unit, 1.0)) for unit in told]
    if suffix == ".vhdr":
        return [(unit, _BRAINVISION.get(unit, 1.0)) for unit in _brainvision_units(path)]
    return []


def _spelt(unit: str) -> str:
    """An 8-bit text of another code page: shift-JIS's mu, or UTF-8."""
    try:
        return unit.encode("latin-1").decode()
    except ValueError:
        return unit.replace("\x83\xca", "µ")


def _brainvision_units(path: Path) -> list[str]:
    header = path.read_bytes()
    try:
        text = header.decode()
    except UnicodeDecodeError:
        text = header.decode("latin-1")
    section = re.search(r"(?ms)^\[Channel Infos\]\s*$(.*?)(?=^\[|\Z)", text)
    rows = re.findall(r"(?m)^Ch\d+=(.*?)\s*$", section[1] if section else "")
    fields = [row.split(",") for row in rows]
    return [(field[3].strip() if len(field) > 3 else "") or "µV" for field in fields]
