"""Small recordings, written in each format."""

import datetime
from contextlib import closing

import mne
import numpy as np
import scipy.io

from stream.sources.xdf_writer import XdfWriter
from tests.stream_info import stream_info

RATE_HZ = 200.0
MEASURED = datetime.datetime(2024, 5, 1, 12, 30, tzinfo=datetime.UTC)


def make_raw(types=("eeg", "eeg", "eog"), n_samples=2000, first_samp=0, meas_date=None):
    """Volts of about 20 uV; stim channels are silent."""
    names = [f"{kind.upper()}{i}" for i, kind in enumerate(types)]
    data = np.random.default_rng(5).normal(0, 20e-6, (len(types), n_samples))
    data[[kind == "stim" for kind in types]] = 0
    info = mne.create_info(names, RATE_HZ, list(types))
    raw = mne.io.RawArray(data, info, first_samp=first_samp, verbose="ERROR")
    return raw.set_meas_date(meas_date)


def save_fif(raw, path):
    raw.save(path, fmt="double", verbose="ERROR")
    return path


BV_MARKERS = (
    "New Segment,,1,1,0,20240501123000000000",
    *("Stimulus,S  7,101,1,0", "Comment,pause,151,1,0", "Stimulus,S 12,201,1,0"),
)


def write_brainvision(folder, samples_uv, markers=BV_MARKERS, unit="µV"):
    """A BrainVision recording written by hand; `samples_uv` is (channels, n), resolution 0.1 uV."""
    n_channels = len(samples_uv)
    (folder / "bv.eeg").write_bytes(np.round(samples_uv.T * 10).astype("<i2").tobytes())
    channels = "".join(f"Ch{i}=C{i},,0.1,{unit}\n" for i in range(1, n_channels + 1))
    (folder / "bv.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n"
        "[Common Infos]\nCodepage=UTF-8\nDataFile=bv.eeg\nMarkerFile=bv.vmrk\n"
        "DataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={n_channels}\nSamplingInterval=2000\n\n"
        f"[Binary Infos]\nBinaryFormat=INT_16\n\n[Channel Infos]\n{channels}",
        encoding="utf-8",
    )
    (folder / "bv.vmrk").write_text(
        "Brain Vision Data Exchange Marker File Version 1.0\n\n"
        "[Common Infos]\nCodepage=UTF-8\nDataFile=bv.eeg\n\n[Marker Infos]\n"
        + "".join(f"Mk{i}={marker}\n" for i, marker in enumerate(markers, 1)),
        encoding="utf-8",
    )
    return folder / "bv.vhdr"


def write_set(path, samples_uv, events, n_trials=1, data=None):
    """An EEGLAB recording; `events` are (type, latency[, duration]), latencies count from 1.

    `data` is the name of a file that has the samples.
    """
    rows = [(kind, float(latency), *map(float, more or [1])) for kind, latency, *more in events]
    fields = [("type", object), ("latency", object), ("duration", object)]
    eeg = {
        "setname": "s",
        "trials": n_trials,
        "srate": RATE_HZ,
        "xmin": 0.0,
        "nbchan": float(len(samples_uv)),
        "pnts": float(samples_uv.shape[1]),
        "data": samples_uv if data is None else data,
        "chanlocs": np.array([(f"E{i}",) for i in range(len(samples_uv))], [("labels", object)]),
        "event": np.array(rows, fields),
        "epoch": np.zeros((0, 0)),
        "comments": "",
    }
    scipy.io.savemat(path, {"EEG": eeg})
    return path


def write_edf(path, samples, channels):
    """A plain EDF recording of one-second records; `samples` is (channels, n), in 0.5 units."""
    n_channels, rate = len(channels), int(RATE_HZ)
    n_records = samples.shape[1] // rate
    head = "0".ljust(8) + "X X X X".ljust(80) + "Startdate X X X X".ljust(80)
    head += "01.05.2412.30.00" + str(256 * (n_channels + 1)).ljust(8) + "".ljust(44)
    head += str(n_records).ljust(8) + "1".ljust(8) + str(n_channels).ljust(4)
    columns = [("EEG " + name).ljust(16) for name, _ in channels] + ["".ljust(80)] * n_channels
    columns += [unit.ljust(8) for _, unit in channels]
    for limit in ("-1000", "1000", "-2000", "2000"):
        columns += [limit.ljust(8)] * n_channels
    columns += ["".ljust(80)] * n_channels + [str(rate).ljust(8)] * n_channels
    columns += ["".ljust(32)] * n_channels
    records = (samples * 2).reshape(n_channels, n_records, rate).transpose(1, 0, 2)
    path.write_bytes((head + "".join(columns)).encode("latin-1") + records.astype("<i2").tobytes())
    return path


def write_edf_plus(path, samples, starts_s, annotations, kind="EDF+D", unit="uV"):
    """Records of one second of a channel; `samples` (n,) in 0.1 units. A .bdf has three bytes each.

    `starts_s` are when the records began; `annotations` (onset, text[, duration]) stand in the
    first of them.
    """
    is_bdf, rate = path.suffix == ".bdf", int(RATE_HZ)
    width, magic, name = (3, "\xffBIOSEMI", "BDF") if is_bdf else (2, "0".ljust(8), "EDF")
    tals = [f"+{start_s:g}\x14\x14\0".encode() for start_s in starts_s]
    for onset_s, text, *duration_s in annotations:
        span = "".join(f"\x15{one:g}" for one in duration_s)
        tals[0] += f"{onset_s:+g}{span}\x14{text}\x14\0".encode()
    told = -(-max(map(len, tals)) // width)  # samples of the annotations in a record
    head = magic + "X X X X".ljust(80) + "Startdate 01-MAY-2024 X X X".ljust(80)
    head += "01.05.2412.30.00" + str(256 * 3).ljust(8) + kind.ljust(44)
    head += str(len(starts_s)).ljust(8) + "1".ljust(8) + "2".ljust(4)
    both = [("Cz", 16), (f"{name} Annotations", 16), ("", 80), ("", 80), (unit, 8), ("", 8)]
    both += [("-3276.7", 8), ("-1", 8), ("3276.7", 8), ("1", 8), ("-32767", 8), ("-32767", 8)]
    both += [("32767", 8), ("32767", 8), ("", 80), ("", 80), (str(rate), 8), (str(told), 8)]
    head += "".join(text.ljust(width) for text, width in both) + "".ljust(64)
    integers = np.ascontiguousarray(samples.astype("<i4")).view(np.uint8).reshape(-1, 4)[:, :width]
    body = [
        integers[number * rate :][:rate].tobytes() + tal.ljust(width * told, b"\0")
        for number, tal in enumerate(tals)
    ]
    path.write_bytes(head.encode("latin-1") + b"".join(body))
    return path


def eeg_header(name="amp", n_channels=2, kind="EEG", rate_hz=RATE_HZ, **more):
    return stream_info(name, kind, n_channels, rate_hz, "float32", **more)


MARKER_HEADER = stream_info("stimuli", "Markers", 1, 0.0, "string")


def write_xdf(path, streams):
    """`streams` are (header, stamps, samples, offsets) and get the ids 1, 2, ..."""
    with closing(XdfWriter(path)) as xdf:
        for stream_id, (header, stamps_s, samples, *offsets) in enumerate(streams, 1):
            xdf.add_stream(stream_id, header.as_xml())
            xdf.write_samples(stream_id, stamps_s, samples)
            for time_s, offset_s in offsets:
                xdf.write_offset(stream_id, time_s, offset_s)
    return path


def eeg_stream(header=None, start_s=50.0, n_samples=400, offsets=()):
    header = header or eeg_header()
    samples = np.random.default_rng(8).normal(size=(n_samples, header.channel_count()))
    stamps_s = start_s + np.arange(n_samples) / RATE_HZ
    return (header, stamps_s, samples.astype(np.float32), *offsets)
