"""The simulated head: its electrodes, what its brain answers to an image, and how people differ.

Every source is a current dipole in a sphere, so that the maps on the scalp are as smooth and as
mixed as those of a real head. All maps are in microvolts against Fz, the reference of
THINGS-EEG2 and the only 10-10 site missing from its list.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

# The 63 channels of THINGS-EEG2 in the order of its files; the last 17 lie over visual cortex.
# fmt: off
CHANNELS = (
    "Fp1", "Fp2", "AF7", "AF3", "AFz", "AF4", "AF8", "F7", "F5", "F3", "F1", "F2", "F4", "F6", "F8",
    "FT9", "FT7", "FC5", "FC3", "FC1", "FCz", "FC2", "FC4", "FC6", "FT8", "FT10",
    "T7", "C5", "C3", "C1", "Cz", "C2", "C4", "C6", "T8",
    "TP9", "TP7", "CP5", "CP3", "CP1", "CPz", "CP2", "CP4", "CP6", "TP8", "TP10",
    "P7", "P5", "P3", "P1", "Pz", "P2", "P4", "P6", "P8", "PO7", "PO3", "POz", "PO4", "PO8",
    "O1", "Oz", "O2",
)
# fmt: on
REFERENCE = "Fz"

RESPONSE_S = 0.95  # every response has died away by then

# Amplitude 1.0 means this many microvolts, at the best electrode, per unit of source strength.
# It sets the ratio of evoked to ongoing EEG, and with it how well the subject can be decoded.
EVOKED_UV = 1.85

# Strengths of the parts of a response, relative to each other.
COMMON_STRENGTH = 5.0  # what every image evokes: P1, N1, P2, P3
PIXEL_STRENGTH = 1.0  # per source driven by the pixels
ATTRIBUTE_STRENGTH = 0.5  # per source and attribute
PAIR_STRENGTH = 0.25  # per source and pair of attributes

N_PIXEL_SOURCES = 64
N_ATTRIBUTE_SOURCES = 64

# Cortex lies at 0.87 head radii; through skull and scalp a dipole looks as one at 0.6 of its
# eccentricity looks in a sphere without them (Ary et al. 1981).
CORTEX_DEPTH = 0.87 * 0.6

# How people differ from the usual head: standard deviations. Electrodes move by 2 to 10 degrees
# from one fitting of a cap to the next (Atcherson et al. 2007), and by 5 mm where heads differ most
# in shape (Towle et al. 1993), of a radius of 79 to 87 mm. P100 varies by 4.2 to 4.9 ms among
# healthy adults, and by 30 to 45 % of its size (de Freitas Dotto et al. 2017). Where visual areas
# lie varies much (Zhen et al. 2015), and folds turn dipoles: how far these, single sources and
# gains differ is chosen. What images change at the 17 visual channels is then correlated by 0.58 on
# average between two people (95 % of pairs of the first 16: 0.28 to 0.75).
CAP_TURN_RAD = 0.07  # about each axis
ELECTRODE_SHIFT = 0.04  # of each electrode by itself, head radii
GAIN_LOG_SD = 0.2  # of a channel: skin, gel and the bone below
EVOKED_LOG_SD = 0.3  # of a whole brain's response
AREA_SHIFT = 0.1  # of an area of cortex, radii of the cortex
FOLD_TILT = 0.4  # of a dipole, in its own lengths
SOURCE_LOG_SD = 0.3
SOURCE_DELAY_SD_S = 0.005
NEIGHBOURHOOD = 0.3  # cortex this near, in its radii, differs alike

GRID_PX = 32  # the resolution at which visual cortex sees the image
SCREEN_GREY = 0.62  # of the background around the image, in THINGS-EEG2
# Typical sizes of the six feature maps, which bring them to one scale.
FEATURE_SIZES = np.array([0.2, 0.15, 0.15, 0.06, 0.06, 0.06])


@cache
def electrode_directions() -> np.ndarray:
    """Where the electrodes lie, seen from the centre of the head.

    Returns unit vectors (64, 3), x to the right, y to the front, z up: CHANNELS, then REFERENCE.
    """
    import mne

    places = mne.channels.make_standard_montage("colin27_1005").get_positions()["ch_pos"]
    points = np.array([places[name] for name in (*CHANNELS, REFERENCE)])
    # The sphere |p - c|^2 = r^2 that fits best: linear in c and r^2 - |c|^2.
    design = np.column_stack([2 * points, np.ones(len(points))])
    centre = np.linalg.lstsq(design, (points**2).sum(axis=1), rcond=None)[0][:3]
    return _unit(points - centre)


def dipole_potential(
    positions: np.ndarray, moments: np.ndarray, electrodes: np.ndarray
) -> np.ndarray:
    """Potential of current dipoles on the surface of a homogeneous unit sphere.

    positions (k, 3) inside the sphere but not at its centre, moments (k, 3), electrodes (c, 3) on
    it; returns (c, k) in units of 1 / (4 pi sigma). Closed form of Mosher, Leahy and Lewis (1999),
    "EEG and MEG: forward solutions for inverse methods".
    """
    offset = electrodes[:, None] - positions
    distance = np.linalg.norm(offset, axis=2)
    along = electrodes @ positions.T
    depth = (positions**2).sum(axis=1)
    c1 = 2 * (offset * positions).sum(axis=2) / distance**3 + 1 / distance - 1
    c2 = 2 / distance**3 + (distance + 1) / (distance * (distance + 1 - along))
    radial = (moments * positions).sum(axis=1)
    return ((c1 - c2 * along) * radial + c2 * depth * (electrodes @ moments.T)) / depth


@dataclass(frozen=True)
class _Sources:
    """Dipoles that each answer once, with a smooth bump in time."""

    maps: np.ndarray  # (63, k)
    latencies_s: np.ndarray  # (k,)
    widths_s: np.ndarray  # (k,), standard deviation of the bump

    def response(self, strengths: np.ndarray, times_s: np.ndarray) -> np.ndarray:
        """Their summed response (63, n) to strengths (k,) at times (n,) after onset."""
        late = (times_s - self.latencies_s[:, None]) / self.widths_s[:, None]
        return (self.maps * strengths) @ np.exp(-0.5 * late**2)


class _Differences:
    """How a cortex differs from the usual one: smooth random functions of the place, of SD 1."""

    def __init__(self, random: np.random.RandomState, n_waves: int = 300) -> None:
        self._waves = random.standard_normal((3, n_waves)) / NEIGHBOURHOOD
        self._phases = random.uniform(0, 2 * np.pi, n_waves)
        self._sizes = np.sqrt(2 / n_waves) * random.standard_normal((n_waves, 8))

    def at(self, where: np.ndarray) -> np.ndarray:
        """Eight of them (k, 8) at places (k, 3)."""
        return np.cos(where @ self._waves + self._phases) @ self._sizes


@dataclass(frozen=True, eq=False)
class Head:
    """A head with its cap: what reaches the channels of a dipole in it. See `head_of`."""

    electrodes: np.ndarray  # unit vectors (64, 3), as of `electrode_directions`
    gains: np.ndarray  # (63,), of all that a channel records
    strength: float = 1.0  # of what its brain answers
    differences: _Differences | None = None

    def maps(self, positions: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """Maps (63, k) of dipoles against the reference, each 1 at the electrode that sees it best.

        positions and moments are (k, 3), in head radii and in any unit.
        """
        potential = dipole_potential(positions, moments, self.electrodes)
        maps = potential[:-1] - potential[-1]
        return maps / np.abs(maps).max(axis=0)

    def sources(
        self,
        where: np.ndarray,
        moments: np.ndarray,
        latencies_s: np.ndarray,
        widths_s: np.ndarray,
    ) -> _Sources:
        """Sources of the usual cortex, in directions (k, 3), as they are in this head."""
        if self.differences is None:
            maps = self.maps(CORTEX_DEPTH * where, moments)
            return _Sources(maps, latencies_s, widths_s)
        by = self.differences.at(where)
        where = _unit(where + AREA_SHIFT * by[:, :3])
        maps = self.maps(CORTEX_DEPTH * where, _unit(moments) + FOLD_TILT * by[:, 3:6])
        maps *= np.exp(SOURCE_LOG_SD * by[:, 6])
        return _Sources(maps, latencies_s + SOURCE_DELAY_SD_S * by[:, 7], widths_s)


@cache
def head_of(person: int | None) -> Head:
    """The head of a person, drawn from a number; None has the usual head, cap and gains.

    People see alike: what a source answers to is a brain's, by its seed, and not a head's.
    """
    electrodes, n = electrode_directions(), len(CHANNELS)
    if person is None:
        return Head(electrodes, np.ones(n, np.float32))
    from scipy.spatial.transform import Rotation

    random = np.random.RandomState(person)
    turn = Rotation.from_rotvec(CAP_TURN_RAD * random.standard_normal(3))
    shifted = electrodes + ELECTRODE_SHIFT * random.standard_normal(electrodes.shape)
    return Head(
        electrodes=_unit(turn.apply(shifted)),
        gains=np.exp(GAIN_LOG_SD * random.standard_normal(n)).astype(np.float32),
        strength=float(np.exp(EVOKED_LOG_SD * random.standard_normal())),
        differences=_Differences(random),
    )


class Brain:
    """What one brain, drawn from a seed, answers to images in a head. See `evoked`."""

    def __init__(self, seed: int, head: Head) -> None:
        # RandomState and not Generator: its stream is frozen for good (NEP 19), and decoders
        # that were trained on a brain must meet the same one under every later numpy.
        random = np.random.RandomState(seed)
        self._seed, self._strength = seed, head.strength
        self._common, self._common_strengths = _common_sources(head)
        centres = random.uniform(-0.85, 0.85, (N_PIXEL_SOURCES, 2))
        self._fields = _receptive_fields(centres)
        self._tuning = _unit(random.standard_normal((N_PIXEL_SOURCES, len(FEATURE_SIZES))))
        self._pixel = _pixel_sources(centres, random, head)
        self._attribute = _attribute_sources(random, head)

    def evoked(
        self, image: np.ndarray, attributes: Mapping[str, str], rate_hz: float
    ) -> np.ndarray:
        """Mean response to an image, in microvolts, from its onset on.

        image is uint8 (h, w, 3), at least 32 px on a side; attributes name what is seen in it, in
        any words. Returns float32 (63, round(0.95 * rate_hz)).
        """
        times_s = np.arange(round(RESPONSE_S * rate_hz)) / rate_hz
        pixel_drive = ((self._fields @ _feature_maps(image)) * self._tuning).sum(axis=1)
        # Divisive normalisation (Heeger 1992): cortex answers to contrast relative to the whole.
        pixel_drive /= np.sqrt(0.1 + np.mean(pixel_drive**2))
        response = (
            COMMON_STRENGTH * self._common.response(self._common_strengths, times_s)
            + PIXEL_STRENGTH * self._pixel.response(pixel_drive, times_s)
            + self._attribute.response(self._attribute_drive(attributes), times_s)
        )
        return (self._strength * EVOKED_UV * response).astype(np.float32)

    def _attribute_drive(self, attributes: Mapping[str, str]) -> np.ndarray:
        """How strongly the attributes, and weaker each pair of them, drive the late sources."""
        words = [f"{name}={attributes[name]}" for name in sorted(attributes)]
        drive = np.zeros(N_ATTRIBUTE_SOURCES)
        for word in words:
            drive += ATTRIBUTE_STRENGTH * self._meaning(word)
        for pair in combinations(words, 2):
            drive += PAIR_STRENGTH * self._meaning("&".join(pair))
        return drive

    def _meaning(self, word: str) -> np.ndarray:
        """The vector that this brain has for a word: random, and always the same."""
        digest = hashlib.blake2b(f"{self._seed}:{word}".encode(), digest_size=4).digest()
        random = np.random.RandomState(int.from_bytes(digest, "little"))
        return random.standard_normal(N_ATTRIBUTE_SOURCES)


def _common_sources(head: Head) -> tuple[_Sources, np.ndarray]:
    """The deflections that every image evokes, and their signed strengths."""
    lateral, ventral = (0.5, -0.8, 0.1), (0.7, -0.65, -0.1)
    medial, parietal = (0.0, -1.0, 0.3), (0.15, -0.65, 0.75)
    waves = [  # where, latency, width, strength
        (lateral, 0.105, 0.016, 0.7),  # P1
        (ventral, 0.170, 0.020, -1.0),  # N1
        (medial, 0.235, 0.030, 0.9),  # P2
        (parietal, 0.400, 0.080, 1.0),  # P3
    ]
    both = [(np.array(w[0]) * (side, 1, 1), *w[1:]) for w in waves for side in (-1, 1)]
    where = _unit(np.array([w[0] for w in both]))
    latencies_s, widths_s, strengths = (np.array([w[i] for w in both]) for i in (1, 2, 3))
    return head.sources(where, where, latencies_s, widths_s), strengths / 2


def _pixel_sources(centres: np.ndarray, random: np.random.RandomState, head: Head) -> _Sources:
    """Early sources in occipital cortex, laid out as the visual field (k, 2) is: crossed over.

    The left half of the field is seen by the right hemisphere, the upper half by the lower bank
    of the calcarine sulcus, and the periphery further to the front than the centre.
    """
    k = len(centres)
    x, y = centres.T
    where = _unit(np.column_stack([-0.6 * x, -1 + 0.25 * np.hypot(x, y), 0.1 - 0.5 * y]))
    folds = _unit(random.standard_normal((k, 3)))
    return head.sources(
        where,
        0.8 * where + folds,
        latencies_s=random.uniform(0.085, 0.21, k),
        widths_s=random.uniform(0.012, 0.022, k),
    )


def _attribute_sources(random: np.random.RandomState, head: Head) -> _Sources:
    """Later sources, half in occipito-temporal and half in parietal cortex of both sides."""
    k = N_ATTRIBUTE_SOURCES
    side = np.where(np.arange(k) % 2, 1.0, -1.0)[:, None]
    ventral = np.arange(k)[:, None] < k // 2
    where = np.where(ventral, [0.7, -0.7, -0.15], [0.35, -0.7, 0.65])
    where = _unit(where * np.hstack([side, np.ones((k, 2))]) + 0.2 * random.standard_normal((k, 3)))
    folds = _unit(random.standard_normal((k, 3)))
    return head.sources(
        where,
        0.8 * where + folds,
        latencies_s=random.uniform(0.22, 0.55, k),
        widths_s=random.uniform(0.025, 0.055, k),
    )


def _receptive_fields(centres: np.ndarray) -> np.ndarray:
    """Gaussian windows (k, GRID_PX**2) on the image around centres (k, 2) in [-1, 1], y up."""
    axis = (np.arange(GRID_PX) + 0.5) / GRID_PX * 2 - 1
    right = np.exp(-0.5 * ((axis - centres[:, :1]) / 0.18) ** 2)
    down = np.exp(-0.5 * ((axis + centres[:, 1:]) / 0.18) ** 2)
    fields = (down[:, :, None] * right[:, None, :]).reshape(len(centres), -1)
    return fields / fields.sum(axis=1, keepdims=True)


def _feature_maps(image: np.ndarray) -> np.ndarray:
    """What early visual cortex takes from an image: (GRID_PX**2, 6).

    Luminance against the screen, the two colour opponents, the strength of edges, and their
    orientation as a double angle, so that both directions of an edge are the same.
    """
    colour = _shrunk(image / 255.0)
    red, green, blue = np.moveaxis(colour, 2, 0)
    luminance = colour @ (0.299, 0.587, 0.114)
    down, right = np.gradient(luminance)
    edge = np.hypot(right, down)
    unit = edge + 1e-6
    maps = [
        luminance - SCREEN_GREY,
        red - green,
        blue - (red + green) / 2,
        edge,
        (right**2 - down**2) / unit,
        2 * right * down / unit,
    ]
    return np.stack(maps, axis=2).reshape(-1, len(maps)) / FEATURE_SIZES


def _shrunk(image: np.ndarray) -> np.ndarray:
    """Mean of the image (h, w, 3) over GRID_PX x GRID_PX tiles."""
    for axis in (0, 1):
        edges = np.linspace(0, image.shape[axis], GRID_PX + 1).astype(int)
        shape = [-1 if i == axis else 1 for i in range(3)]
        sums = np.add.reduceat(image, edges[:-1], axis=axis)
        image = sums / np.diff(edges).reshape(shape)
    return image


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
