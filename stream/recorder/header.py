"""The XML in which a stream describes itself, as a file can keep it and a person corrects it."""

import re
from collections.abc import Container, Sequence
from html import escape
from xml.etree import ElementTree

from hvf_core.text import printable
from stream.acquire.lsl import pylsl

_TAG = re.compile(r"<(/?)([^<>?]+?)(\s*/?)>")
_NO_NAME = re.compile(r"[^\w.-]|^(?=[\d.-])")
_NO_CHARACTER = re.compile(r"&#(\d+);|[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DESC = re.compile(r"<desc>.*</desc>", re.DOTALL)


def legible(header: str) -> str:
    """The header as it is where it is XML, else with all that it says in a form that is.

    Programs put control characters into it, and tags such as `<my key>`, and LSL lets them; a file
    with such a header could not be read. What no mending helps is kept as a text, `<unreadable>`.
    """
    if _is_xml(header):
        return header
    mended = _TAG.sub(lambda m: f"<{m[1]}{_NO_NAME.sub('_', m[2])}{m[3]}>", header)
    mended = _NO_CHARACTER.sub(_spelled, mended)
    if _is_xml(mended):
        return mended
    text = "".join(
        f"<unreadable>{escape(one, quote=False)}</unreadable>" for one in _DESC.findall(mended)
    )
    return _DESC.sub(lambda _: f"<desc>{text}</desc>", mended)


def _is_xml(text: str) -> bool:
    try:
        ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeEncodeError):
        return False
    return True


def _spelled(found: re.Match[str]) -> str:
    one = chr(int(found[1])) if found[1] else found[0]
    return printable(one) if found[1] is None or _NO_CHARACTER.fullmatch(one) else found[0]


def is_same_source(one: str, other: str) -> bool:
    """Whether two headers are of one source, which may have been started again meanwhile."""
    ours, theirs = map(ElementTree.fromstring, (one, other))
    told = ("name", "type", "channel_count", "channel_format", "nominal_srate")
    return all(ours.findtext(tag) == theirs.findtext(tag) for tag in told) and (
        _words(ours.find("desc")) == _words(theirs.find("desc"))
    )


def name_in(header: str) -> str:
    """What the stream is called."""
    return printable(ElementTree.fromstring(header).findtext("name", ""))


def _words(element: ElementTree.Element | None) -> list[tuple[str, str]]:
    return [] if element is None else [(e.tag, (e.text or "").strip()) for e in element.iter()]


def corrected(
    header: str, channels: Sequence[str], rate_hz: float | None, codes: Container[str]
) -> str:
    """The header with what a person knows better than the stream.

    Args:
        channels: what all of its channels are called.
        rate_hz: its true rate; None where it says that itself.
        codes: channels that hold codes, which have no unit.
    """
    told = ElementTree.fromstring(header)
    desc = _part(told, "desc")
    if len(desc.findall("channels/channel")) != len(channels):
        for block in desc.findall("channels"):
            desc.remove(block)
        block = _part(desc, "channels")
        for _ in channels:
            ElementTree.SubElement(block, "channel")
    for element, name in zip(desc.findall("channels/channel"), channels, strict=True):
        _part(element, "label").text = name
        if name in codes:
            _part(element, "unit").text = ""
    if rate_hz is not None:
        _part(told, "nominal_srate").text = str(rate_hz)
    return ElementTree.tostring(told, "unicode")


def _part(element: ElementTree.Element, tag: str) -> ElementTree.Element:
    found = element.find(tag)
    return ElementTree.SubElement(element, tag) if found is None else found


def made(
    name: str,
    kind: str,
    rate_hz: float,
    channel_format: str,
    channels: Sequence[str] = ("",),
    kinds: Sequence[str] = (),
    units: Sequence[str] = (),
    simulated: bool = False,
    joined: bool = False,
) -> str:
    """The header of a stream that was never on LSL; its name is its source id too."""
    info = pylsl.StreamInfo(name, kind, len(channels), rate_hz, channel_format, name)
    if any(channels):
        info.set_channel_labels(list(channels))
    if kinds:
        info.set_channel_types(list(kinds))
    if units:
        info.set_channel_units(list(units))
    if simulated:
        info.desc().append_child_value("simulated", "true")
    if joined:
        info.desc().append_child_value("joined", "true")
    return legible(info.as_xml())
