"""The doctor: what it says of machines, models, streams and sessions, well and ill."""

import getpass
import json
import os
import re
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import get_origin

import faiss
import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from hvf_core import provenance
from hvf_core.artifact import file_sha256
from hvf_core.options import LIVE
from hvf_core.problem import Problem, WrongUsage
from hvf_core.settings import Settings, settings_of
from stream.acquire.lsl import local_clock
from stream.doctor import beside, lsl, machine, models, network, program, records, streams
from stream.doctor.bug_report import check_target, write_bug_report
from stream.doctor.run import SECTIONS, examine, verdicts
from stream.doctor.verdict import Check, Named, Verdict, refused, verdict
from stream.pipeline.books.ledger import Ledger
from stream.pipeline.wire.config import (
    Endpoints,
    LiveSource,
    SessionConfig,
    SessionSettings,
    read_config,
)
from stream.pipeline.wire.keys import lab_keys, make_lab_keys
from stream.sources.outlets import Outlets, sleep_until
from stream.sources.xdf_writer import XdfWriter
from tests import forked
from tests.calling import call, environment_as_before
from tests.sessions import PATIENCE_S
from tests.stream_info import stream_info
from tests.tiny_painting import CHANNELS, write_models, write_recording

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, `prior`, `bundle` and `gallery` as they should be."""
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def ill(tmp_path: Path) -> Path:
    """The same, for a test to damage."""
    return write_models(tmp_path)


def settings(folder: Path, **more: object) -> SessionSettings:
    return SessionSettings(bundle=folder / "bundle", gallery=folder / "gallery", **more)


def said(check: Check, named: Named | SessionSettings | None = None) -> list[Verdict]:
    """What a check says of what is named; of nothing by default."""
    if not isinstance(named, Named):
        named = Named(named or SessionSettings())
    return list(verdicts(check, named, 60.0))


def states(found: list[Verdict]) -> set[str]:
    return {one.state for one in found}


def test_the_first_trouble_that_is_there_is_told() -> None:
    troubles = [(False, "never"), (True, "do this"), (True, "or that")]
    assert verdict("it is so", *troubles) == ("warn", "it is so: do this")
    assert verdict("it is so", (0, "never"), ("", "never")) == ("ok", "it is so")


def test_a_check_that_fails_dies_or_hangs_is_a_line_after_what_it_said_before() -> None:
    hung = threading.Event()

    def refuses(named: Named) -> Iterator[Verdict]:
        yield verdict("before")
        yield from refused(lambda: int("1"))
        raise Problem("the sentence: the way out")

    def dies(named: Named) -> Iterator[Verdict]:
        yield verdict("before")
        raise ZeroDivisionError("by nothing")

    def hangs(named: Named) -> Iterator[Verdict]:
        yield verdict("before")
        hung.wait(60)

    named = Named(SessionSettings())
    assert said(refuses) == [("ok", "before"), ("FAIL", "the sentence: the way out")]
    before, died = said(dies)
    assert (before.text, died.state) == ("before", "FAIL")
    assert "'dies'" in died.text
    assert "ZeroDivisionError (by nothing)" in died.text
    before, late = verdicts(hangs, named, 0.5)
    hung.set()
    assert (before.text, late.state) == ("before", "FAIL")
    assert "did not end within 0.5 s" in late.text


@pytest.mark.slow
@pytest.mark.usefixtures("demo_model")
def test_this_machine_is_looked_at_line_by_line() -> None:
    done = call("doctor")
    lines = done.out.splitlines()
    sections = [line for line in lines if line in SECTIONS]
    assert sections == ["program", "machine", "network", "LSL", "models"]
    *found, sums, onward = [line for line in lines if line not in SECTIONS]
    assert onward.startswith(f"next: {LIVE} record ")
    assert all(re.match(r"(ok  |warn|FAIL) \S", line) for line in found)
    counts = {
        state: sum(line.startswith(state) for line in found) for state in ("ok", "warn", "FAIL")
    }
    assert sums == ", ".join(f"{n} {state}" for state, n in counts.items())
    assert done.code == (counts["FAIL"] > 0)
    assert done.err == ""


def test_packages_that_are_missing_or_too_old_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(said(program.packages)) == {"ok"}

    changed, there = {"mne": None, "rich": "1.0", "faiss-gpu": "1.15.1"}, provenance._version

    def other(package: str) -> str | None:
        return changed[package] if package in changed else there(package)

    monkeypatch.setattr("hvf_core.provenance._version", other)
    (found,) = said(program.packages)
    assert found.state == "FAIL"
    assert "mne is missing, needed is mne" in found.text
    assert "rich is 1.0, needed is rich" in found.text
    assert "faiss" not in found.text


def test_a_gpu_that_faiss_cannot_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(program.engines)[-1].text.startswith(f"FAISS {faiss.__version__} for ")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    assert said(program.engines)[-1].text.endswith('for CPUs: the README\'s ".[gpu]" brings it')
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    assert "of which it sees 0: bring the driver" in said(program.engines)[-1].text


def test_a_card_that_torch_cannot_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "said_by", lambda *command: "NVIDIA X, 580.1, 81559 MiB, 9.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    assert "install the CUDA build" in said(program.devices)[0].text
    monkeypatch.setattr("torch.version.cuda", "13.0")
    assert "driver up to CUDA 13.0" in said(program.devices)[0].text


def test_a_disk_that_is_full_slow_far_or_read_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    free = {"bytes": 10**11}
    mount = SimpleNamespace(mountpoint=str(tmp_path), fstype="ext4")
    monkeypatch.setattr(psutil, "disk_usage", lambda place: SimpleNamespace(free=free["bytes"]))
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [mount])
    monkeypatch.setattr(machine, "_SLOW_MS", 1e9)
    assert states(said(machine.sessions)) == {"ok"}
    mount.fstype = "nfs4"
    assert "on the network (nfs4)" in said(machine.sessions)[0].text
    free["bytes"] = 2 * 10**9
    mount.fstype = "ext4"
    assert states(said(machine.sessions)) == {"warn"}
    free["bytes"] = 10**8
    assert states(said(machine.sessions)) == {"FAIL"}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (found,) = said(machine.sessions)
    assert found.state == "FAIL"
    assert "(No space left on device): give another folder with --out" in found.text
    assert list(tmp_path.iterdir()) == []


def test_which_configuration_liblsl_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    home = str(tmp_path / "home")
    monkeypatch.setattr("os.path.expanduser", lambda path: path.replace("~", home))
    monkeypatch.delenv("LSLAPICFG")
    assert "no lsl_api.cfg: streams of session 'default'" in said(lsl.configuration)[0].text
    (tmp_path / "home/lsl_api").mkdir(parents=True)
    (tmp_path / "home/lsl_api/lsl_api.cfg").write_text("[lab]\nSessionID = at home\n")
    assert "'at home'" in said(lsl.configuration)[0].text
    Path("lsl_api.cfg").write_text("[lab]\nKnownPeers = {stim}\n[multicast]\nResolveScope = link\n")
    assert "scope 'link', known peers '{stim}'" in said(lsl.configuration)[0].text
    monkeypatch.setenv("LSLAPICFG", str(tmp_path / "nowhere"))
    (found,) = said(lsl.configuration)
    assert (found.state, "LSLAPICFG is no file" in found.text) == ("warn", True)
    monkeypatch.setenv("LSLAPICFG", str(tmp_path / "mine.cfg"))
    (tmp_path / "mine.cfg").write_text("SessionID = x\n")
    assert states(said(lsl.configuration)) == {"FAIL"}


def test_a_sample_goes_through_lsl_and_a_wrong_library_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    took, _ = said(lsl.loop)
    assert re.fullmatch(r"a sample came through LSL in [\d.]+ ms", took.text)
    monkeypatch.setenv("PYLSL_LIB", "/nowhere/liblsl.so")
    (found,) = said(lsl.library)
    assert (found.state, "'/nowhere/liblsl.so'" in found.text) == ("warn", True)


def test_streams_of_others_are_not_the_results_of_the_session_that_is_looked_at(
    session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(session / "config.json")
    results, of_another = f"results-{config.session}", "results-of-another"
    found = [SimpleNamespace(name=name, type="R", source_id=name) for name in (results, of_another)]
    monkeypatch.setattr("stream.acquire.lsl.list_streams", lambda: found)
    _, others = said(lsl.loop, config)
    assert others.text == f"streams of others: '{of_another}' (R)"


def test_what_keeps_streams_of_other_machines_out_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard, _ = said(network.multicast)
    assert heard.text.startswith("IPv4 multicast comes back on ")
    monkeypatch.setattr(network, "_SITE_GROUP", "239.255.172.999")  # which nobody can join
    assert "comes back on no interface: let the firewall" in said(network.multicast)[0].text
    monkeypatch.setattr(network, "_UFW", tmp_path / "ufw.conf")
    chain = "chain {0} {{\n\t\ttype filter hook {0} priority filter; policy {1};\n\t}}\n"
    rules = chain.format("forward", "drop") + chain.format("input", "drop")
    tools: dict[tuple[str, ...], str] = {}
    monkeypatch.setattr(network, "said_by", lambda *command: tools.get(command, ""))
    outputs = {"listen": "0.0.0.0:5757"}
    asked = SessionSettings(outputs=outputs)
    assert "are not told to this user: `sudo nft" in said(network.firewall, asked)[0].text
    tools["nft", "list", "ruleset"] = rules
    (shut,) = said(network.firewall, asked)
    assert (shut.state, "of this session TCP 5757 to 5760" in shut.text) == ("warn", True)
    tools["nft", "list", "ruleset"] = rules.replace("input priority filter; policy drop", "input")
    assert said(network.firewall, asked) == [("ok", "the firewall's rules let all in")]
    tools["nft", "list", "ruleset"] = ""
    tools["iptables", "-S"] = "-P INPUT ACCEPT\n-P FORWARD DROP\n-A INPUT -p udp -j REJECT\n"
    assert states(said(network.firewall, asked)) == {"warn"}
    (tmp_path / "ufw.conf").write_text("# on\nENABLED=yes\n")
    assert "ufw is on: streams of other machines need it" in said(network.firewall)[0].text
    for system, name in (("win32", "Windows"), ("darwin", "macOS"), ("plan9", "plan9")):
        monkeypatch.setattr(sys, "platform", system)
        assert name in said(network.firewall)[0].text


def test_keys_that_others_can_read_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert "`keys make` or --listen makes them" in said(network.keys)[0].text
    make_lab_keys()
    assert states(said(network.keys)) == {"ok"}
    lab_keys().chmod(0o644)
    assert states(said(network.keys)) == {"FAIL"}


def test_models_that_are_well(well: Path) -> None:
    painting = {"prior": well / "prior", "base": str(well / "base")}
    named = settings(well, painting=painting)
    with environment_as_before():  # of a program that asks the hub for nothing
        found = [one for check in models.CHECKS for one in said(check, named)]
    assert [one.text for one in found if one.state != "ok"] == [
        "its probabilities are calibrated on no images: believe none, but train with "
        "`mbp --hold-out 200`, or run `python -m offline_train calibrate`"
    ]
    text = "\n".join(one.text for one in found)
    assert "the 4 channels (Fz, Cz, Pz, Oz)" in text
    assert "run through engine onnx" in text
    assert "run through engine torch" in text
    assert "all of its image files can be opened" in text
    assert "the prior fits it" in text


def test_every_image_of_a_gallery_is_opened(ill: Path) -> None:
    first, second, *_ = sorted((ill / "gallery/images").iterdir())
    first.write_bytes(first.read_bytes()[:-20])
    second.unlink()
    _, found = said(models.gallery, settings(ill))
    assert found.state == "FAIL"
    assert "2 of its 4 images cannot be opened, first '00000.png' (damaged)" in found.text


def test_a_bundle_that_is_cut_short_or_of_another_space(ill: Path, well: Path) -> None:
    foreign = SessionSettings(bundle=ill / "bundle", gallery=well / "gallery")
    write_models(ill, dim=12)
    assert states(said(models.together, foreign)) == {"FAIL"}
    brain = ill / "bundle/brain.safetensors"
    brain.write_bytes(brain.read_bytes()[:-1])
    (found,) = said(models.bundle, settings(ill))
    assert (found.state, "is damaged" in found.text) == ("FAIL", True)


def test_weights_that_are_not_finite_do_not_run(ill: Path) -> None:
    file, manifest = ill / "bundle/brain.safetensors", ill / "bundle/bundle.json"
    arrays = load_file(file)
    arrays[max(arrays, key=lambda name: arrays[name].size)][:] = np.nan
    before = file_sha256(file)
    save_file(arrays, file)
    manifest.write_text(manifest.read_text().replace(before, file_sha256(file)))
    for check in (models.bundle, models.engines):
        (found,) = said(check, settings(ill))
        assert (found.state, "not finite" in found.text) == ("FAIL", True)


class Player:
    """EEG of noise at a rate, one channel flat, for as long as it is open."""

    def __init__(
        self, name: str, channels: tuple[str, ...], told_hz: float, rate_hz: float
    ) -> None:
        self._outlets = Outlets(name, channels, told_hz)
        self._rate_hz, self._n, self._ends = rate_hz, len(channels), threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)

    def _play(self) -> None:
        start_s, rng, first = local_clock(), np.random.default_rng(0), 0
        while not self._ends.is_set():
            stamps_s = start_s + np.arange(first, first + 5) / self._rate_hz
            sleep_until(stamps_s[-1])
            samples = rng.standard_normal((5, self._n)).astype(np.float32)
            samples[:, -1] = 0
            self._outlets.push_eeg(samples, stamps_s)
            first += 5

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()


@pytest.mark.slow
def test_a_stream_is_held_against_the_bundle_and_listened_to(
    well: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_LISTEN_S", 1.0)
    source = LiveSource(eeg="doctor-eeg", markers="doctor-eeg-markers", wait_s=5.0)
    with Player("doctor-eeg", ("Fz", "Cz", "Pz", "PO7"), 200, 150):
        found = said(streams.flow, settings(well, source=source))
        mapped = said(streams.flow, settings(well, source=source, channel_map={"PO7": "Oz"}))
    markers, there, missing, rate, delay, quality, answer = found
    assert (there.state, "4 channels (Fz, Cz, Pz, PO7)" in there.text) == ("ok", True)
    assert (missing.state, "missing Oz" in missing.text) == ("FAIL", True)
    assert (rate.state, "Hz: it promises 200 Hz, are some lost?" in rate.text) == (
        "warn",
        True,
    )
    assert "clock offset" in delay.text
    assert (quality.state, "flat channels: PO7; clipped: none" in quality.text) == ("warn", True)
    assert "FAIL" not in states(mapped)
    assert (markers.state, "none was sent meanwhile" in markers.text) == ("warn", True)
    assert "the window ends at 0.19 s, its last sample can be read" in answer.text


@pytest.mark.slow
def test_a_stream_that_is_not_there_or_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_LISTEN_S", 1.0)
    outlets = Outlets("doctor-silent", CHANNELS, 100)
    silent, absent, irregular = (
        said(streams.flow, SessionSettings(source=LiveSource(eeg=name, wait_s=wait_s)))
        for name, wait_s in (
            ("doctor-silent", 5.0),
            ("doctor-absent", 0.1),
            (outlets.marker_name, 5.0),
        )
    )
    assert silent[-1].state == absent[-1].state == irregular[-1].state == "FAIL"
    assert "start the amplifier" in silent[-1].text
    assert "no LSL stream named 'doctor-absent'" in absent[-1].text
    assert "network interface" not in absent[-1].text
    monkeypatch.setattr(psutil, "net_if_stats", dict)
    (deaf,) = said(
        streams.flow, SessionSettings(source=LiveSource(eeg="doctor-absent", wait_s=0.1))
    )
    assert deaf.text.endswith("no network interface is up: bring one up, loopback suffices")
    assert "is irregular" in irregular[-1].text


def test_a_recording_is_held_against_bundle_and_gallery(well: Path, tmp_path: Path) -> None:
    file = write_recording(tmp_path / "r_raw.fif", "abxa")
    found, trials, known = said(records.recording, Named(settings(well), recording=file))
    assert trials.text == "its trials: 4 cut"
    assert (found.state, "4 markers of 3 stimuli" in found.text) == ("ok", True)
    assert (known.state, "2 of its 3 stimuli are in the gallery" in known.text) == ("warn", True)


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """The folder of a session of a person, whose names are in all that is kept of it."""
    folder = tmp_path / f"{getpass.getuser()}-first"
    (folder / "logs").mkdir(parents=True)
    (folder / "images").mkdir()
    source = LiveSource(eeg="BrainVision", markers="PsychoPy")
    SessionConfig(
        session="s1",
        folder=folder,
        endpoints=Endpoints.local(),
        source=source,
        bundle=Path.home() / "b",
    ).write()
    (folder / "summary.json").write_text(
        json.dumps({"markers": 2, "decoded": 1, "cut": 0, "dropped": {"gap": 1}})
    )
    (folder / "logs/reader.log").write_text(
        f"{Path.home()}/eeg {socket.gethostname()}: no 'red_barn' ('BrainVision', on stim-pc.lab), "
        + json.dumps({"id": 'old "owl"'})
    )
    writer = XdfWriter(folder / "recording.xdf")
    writer.add_stream(1, stream_info("BrainVision", "EEG", 2, 100.0, "float32").as_xml())
    writer.write_samples(1, np.arange(200) / 100, np.zeros((200, 2), np.float32))
    writer.close()
    ledger = Ledger(folder / "ledger.jsonl")
    ledger.announce(1, stimulus="red_barn", group="red_barn", repeat=1, onset_s=1.5, readable_s=1.6)
    ledger.announce(2, stimulus='old "owl"', group="owls", repeat=1, onset_s=2.5, readable_s=2.6)
    answer = {"ids": ["blue-boat"], "rank": 3, "scores": [0.5], "probabilities": [0.5]}
    answer |= {"tmax_s": 1.0, "calibrated": False, "abstain": False}
    answer |= {"stamps": {"window_end": 2.25}}
    ledger.settle(1, "decoded", stimulus="red_barn", n_repeats=1, **answer)
    ledger.settle(2, "dropped", reason="gap", detail="of an owl")
    ledger.note("control", verb="mark", argument="Anna is tired", by="me", outcome="done")
    ledger.note("end", reason="stop")
    ledger.close()
    return folder


def test_a_session_that_ended_was_killed_or_does_not_sum(session: Path) -> None:
    named = Named(SessionSettings(), session=session)
    found = said(records.session, named)
    assert states(found) == {"ok"}
    assert "2 markers: 1 decoded, 1 dropped; reasons: 1 gap; 0 without an end" in found[-1].text

    ledger = session / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    killed = "".join(lines[:3]) + lines[3][:20]
    ledger.write_text(killed)
    (session / "summary.json").unlink()
    found = said(records.session, named)
    assert states(found) == {"warn"}
    assert "1 without an end" in found[-1].text
    assert ledger.read_text() == killed  # looked at, and left alone

    (session / "recording-2.xdf").write_bytes(b"no XDF")
    ledger.write_text("".join([lines[0], lines[2], lines[2]]))
    *found, damage, sums = said(records.session, named)
    assert [one.state for one in found] == ["warn", "FAIL"]
    assert damage.text.startswith("a line of ledger.jsonl is damaged and left out")
    assert "1 markers: 1 decoded" in sums.text
    (session / "config.json").unlink()
    assert states(said(records.session, named)) == {"FAIL"}


@pytest.mark.parametrize(
    ("name", "kept", "says"),
    [
        ("recording.xdf", -20, "left out bytes"),
        ("summary.json", 10, "its summary.json is damaged: `run_realtime.py finish FOLDER`"),
        ("summary.json", b"[]", "its summary.json is damaged: `run_realtime.py finish FOLDER`"),
        ("summary.json", b"{}", "another number than the ledger of decoded, cut, markers, dropped"),
    ],
)
def test_half_a_file_of_a_session_is_not_called_well(
    session: Path, name: str, kept: int | bytes, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for section in {*SECTIONS} - {"on disk"}:
        monkeypatch.setitem(SECTIONS, section, ())
    file = session / name
    file.write_bytes(kept if isinstance(kept, bytes) else file.read_bytes()[:kept])
    lines = call("doctor", "--session", session).out.splitlines()
    (wrong,) = (line for line in lines if line.startswith("warn"))
    assert says in wrong
    mends = "finish" if name == "summary.json" else "export"
    assert lines[-1].startswith(f"next: {LIVE} {mends} {session}")


def test_a_bug_report_holds_no_data_of_a_person(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HVF_TEST_SECRET", "swordfish")
    recording = write_recording(tmp_path / "anna_raw.fif", "ab")
    settings = SessionSettings(bundle=Path.home() / "b")
    config = session / "config.json"  # of before there were rules for it
    config.write_text(config.read_text().replace('"subject": null', '"subject": "vp 17 (Anna)"'))
    named = Named(settings, recording, session)
    heard = (
        f"FAIL of {getpass.getuser()} at {Path.home()}, '{recording}', 'x' (EEG, on stim-pc.lab)"
    )
    file = tmp_path / "report.zip"
    write_bug_report(file, named, [Verdict("FAIL", heard)], f"log of {socket.gethostname()}")

    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        texts = {name: archive.read(name).decode() for name in names}
    assert {Path(name).suffix for name in names} == {".txt", ".json", ".jsonl", ".log"}
    everything = "\n".join([*names, *texts.values()])
    secrets = [
        str(Path.home()),
        "red_barn",
        "old ",
        "owls",
        "blue-boat",
        "anna",
        "Anna",
        "tired",
        "vp 17",
    ]
    assert [word for word in [*secrets, "stim-pc", "swordfish"] if word in everything] == []
    for word in (getpass.getuser(), socket.gethostname()):
        assert not re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", everything, re.IGNORECASE)
    assert not re.search(r"\[[^\]]*\d\.\d[^\]]*\]", everything)  # no list of numbers: no array

    assert json.loads(texts["verdicts.json"])[0]["state"] == "FAIL"
    assert "FAIL of USER at HOME, 'NAMED'" in texts["verdicts.txt"]
    assert f"torch=={version('torch')}" in texts["packages.txt"]
    entries = [json.loads(line) for line in texts["session/ledger.jsonl"].splitlines()]
    assert {"event": "dropped", "trial": 2, "reason": "gap"} in entries
    decoded = next(entry for entry in entries if entry["event"] == "decoded")
    assert (decoded["trial"], decoded["n_repeats"]) == (1, 1)
    assert decoded["stamps"] == {"window_end": 2.25}
    assert {"event": "control", "verb": "mark", "outcome": "done"} in entries
    assert texts["session/logs/reader.log"] == (
        "HOME HOST: no 'STIMULUS' ('EEG', on HOST), " + '{"…": "…"}'
    )
    assert json.loads(texts["session/config.json"])["bundle"] == "BUNDLE"


def planted(tree: type[Settings], words: Iterator[str], prefix: str = "") -> Settings:
    """Settings with a name of its own in every one that takes a text."""
    values: dict[str, object] = {}
    for name in tree.model_fields:
        one = settings_of(SessionSettings)[prefix + name]
        kinds = {get_origin(kind) or kind for kind in one.kinds}
        if one.section is not None:
            values[name] = planted(one.section, words, f"{prefix}{name}.")
        elif str in kinds:
            values[name] = f"{next(words)}:5000"
        elif Path in kinds:
            values[name] = Path("/mnt/a b", next(words))
        elif dict in kinds:
            values[name] = {next(words): next(words)}
        elif tuple[str, ...] in one.kinds:
            values[name] = (next(words),)
    return tree.model_construct(**values)


def test_whatever_is_called_after_a_person_is_not_in_a_bug_report(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    some = (used.append(f"Kranz{a}{b}") or used[-1] for a in "abcdefgh" for b in "abcdefgh")
    chosen = planted(SessionSettings, some)
    used.remove(chosen.subject.removesuffix(":5000"))
    chosen = chosen.model_copy(update={"subject": "AK"})
    config = session / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | chosen.model_dump(mode="json")))
    (session / "summary.json").write_text('{"n": 2, "streams": {"notices": ["of Kranz"]}}')
    monkeypatch.setenv("HF_HOME", "/mnt/Otto Kranz/hf")
    (tmp_path / "kranz.cfg").write_text("[lab]\nKnownPeers = {kranz-pc}\nSessionID = kranz\n")
    monkeypatch.setenv("LSLAPICFG", str(tmp_path / "kranz.cfg"))
    told = [*said(program.program), *said(lsl.configuration)]
    log = "/mnt/Otto Kranz/hf, 192.168.7.44, a /mnt/kranz/x, peer {kranz-pc}, AK, 'Kranz' isn't "
    log += f"'reader'\nFile \"{records.__file__}\"\n"
    log += "".join(
        f"stream {word} {word}:5000 '{word}?' [R_{word[:6]} ] /mnt/a b/{word}/x\n" for word in used
    )
    (session / "logs/reader.log").write_text(log)
    (session / "logs/kranz.log").write_text(log)
    named = Named(chosen, session=session)
    write_bug_report(
        tmp_path / "r.zip", named, [*told, Verdict("warn", "'Kranz' on kranz-pc")], log
    )

    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    everything = "\n".join([*texts, *texts.values()])
    assert re.findall(r".*(?:kranz|\bAK\b|192\.168).*", everything, re.IGNORECASE) == []
    settings = json.loads(texts["settings.json"])
    assert (settings["subject"], settings["top_k"], settings["transport"]) == ("SUBJECT", 5, "auto")
    assert (
        "'NAMED' isn't 'reader'\nFile \"PROGRAM/stream/doctor/records.py\""
        in texts["libraries.log"]
    )


def test_folders_are_hidden_however_they_are_called(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(session)
    named = Named(SessionSettings(), Path("../anna.set"), Path())
    heard = f"'.' is {session}, '../anna.set' is {tmp_path}/anna.set. 2.5 s"
    write_bug_report(tmp_path / "r.zip", named, [Verdict("ok", heard)], "")
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        told = archive.read("verdicts.txt").decode()
    assert told == "ok    '.' is NAMED, 'NAMED' is NAMED. 2.5 s\n"


def test_a_bug_report_of_a_broken_session_is_written_all_the_same(
    session: Path, tmp_path: Path
) -> None:
    (session / "ledger.jsonl").write_bytes(b'{"event":"marker","trial":1}\n\xff{"eve\n[1]\n7\n')
    (session / "config.json").unlink()
    write_bug_report(tmp_path / "r.zip", Named(SessionSettings(), session=session), [], "")
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        entries = archive.read("session/ledger.jsonl").decode().splitlines()
    assert [json.loads(one)["event"] for one in entries] == ["marker", *["damaged"] * 3]


@pytest.mark.parametrize("home", ["/", "~"])
def test_a_user_without_name_and_home_can_report_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr("os.path.expanduser", lambda path: path.replace("~", home))
    heard = Verdict("ok", "'/opt/lib' is there, 1 / 2")
    write_bug_report(tmp_path / "r.zip", Named(SessionSettings()), [heard], "")
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert archive.read("verdicts.txt").decode() == "ok    'NAMED' is there, 1 / 2\n"
    assert said(lsl.configuration, Named(SessionSettings()))[0].state == "ok"


@pytest.mark.slow
def test_the_command_names_what_fails_and_writes_the_report(ill: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.zip"
    (ill / "gallery/images/00001.png").unlink()
    named = ("--bundle", ill / "bundle", "--session", "/nowhere")
    done = call("doctor", *named, "--bug-report", file, "--json")
    assert (done.code, done.err) == (1, "")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert {one["section"] for one in lines} < {*SECTIONS}
    fails = [one["text"] for one in lines if one["state"] == "FAIL"]
    assert any("1 of its 4 images" in line for line in fails)
    assert any("/nowhere' has no config.json" in line for line in fails)
    with zipfile.ZipFile(file) as archive:
        told = archive.read("verdicts.txt").decode()
        assert "liblsl" in archive.read("verdicts.txt").decode()
    assert told.count("FAIL") == len(fails)
    with pytest.raises(WrongUsage, match="must be a new file"):
        check_target(file)


@pytest.mark.parametrize("name", ["report.txt", "no/folder/report.zip"])
def test_a_report_is_a_new_zip_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(WrongUsage, match="must be a new file that ends in"):
        check_target(tmp_path / name)


def test_all_checks_are_listed_and_what_is_not_named_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for section in ("models", "streams", "on disk"):
        for check in SECTIONS[section]:
            assert check is models.demo or said(check) == []
    running: list[str] = []
    monkeypatch.setattr("stream.doctor.run.verdicts", lambda *_: [])
    list(examine(Named(SessionSettings()), running.append))
    assert running == [check.__name__ for checks in SECTIONS.values() for check in checks]


def test_what_a_page_has_looked_at_while_its_session_runs_and_once_it_is_over(
    session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Named]] = []

    def note(check: Check, named: Named, limit_s: float) -> Iterator[Verdict]:
        asked.append((check.__name__, named))
        yield Verdict("ok", check.__name__)

    monkeypatch.setattr("stream.doctor.run.verdicts", note)
    for is_over, sections in ((False, beside.WHILE_IT_RUNS), (True, ("on disk",))):
        asked.clear()
        told = [json.loads(line) for line in beside.lines(session, is_over=is_over)]
        expected = [(name, check.__name__) for name in sections for check in SECTIONS[name]]
        assert [(one["section"], one["text"]) for one in told] == expected
        _, named = asked[0]
        assert (named.session, named.settings.source is None) == (session, is_over)
    assert not {"program", "models"} & {*beside.WHILE_IT_RUNS}  # which take cores


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_checks_end_with_the_page_that_has_begun_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")  # which would be waited for without end
    command = [sys.executable, "-m", "stream.doctor.beside", str(tmp_path)]
    process = forked.Popen(command, stdin=subprocess.PIPE)
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 1
