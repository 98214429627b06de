"""An inlet of a real LSL stream: what its channels are called, and in which unit they come."""

import queue
import uuid

import numpy as np
import pytest

from stream.acquire.inlet import Inlet
from stream.acquire.lsl import find_stream, pylsl


@pytest.fixture
def outlet():
    """Two voltages and a trigger, all of which are said to be in volts."""
    name = f"amp-{uuid.uuid4().hex[:8]}"
    info = pylsl.StreamInfo(name, "EEG", 3, 100.0, "float32", name)
    info.set_channel_labels(["EEG1", "EEG2", "AUX7"])
    info.set_channel_units("volts")
    return pylsl.StreamOutlet(info), name


def pulled(outlet, name, **options):
    arrived = queue.SimpleQueue()
    inlet = Inlet(find_stream(name, 20.0), arrived.put, **options)
    inlet.start()
    assert outlet.wait_for_consumers(20.0)
    outlet.push_chunk(np.array([[1e-6, 2e-6, 9.0]], np.float32), [1.0])
    samples = arrived.get(timeout=20.0).samples
    inlet.stop()
    return inlet, samples


def test_a_trigger_is_known_by_the_name_that_it_has_here(outlet):
    """It is not scaled, whatever the stream calls it; the stream's own labels are kept."""
    inlet, samples = pulled(*outlet, names={"AUX7": "STI", "EEG1": "Cz"}, unscaled=["STI"])
    assert inlet.channels == ("Cz", "EEG2", "STI")
    assert inlet.labels == ("EEG1", "EEG2", "AUX7")
    np.testing.assert_allclose(samples, [[1.0, 2.0, 9.0]], rtol=1e-6)
