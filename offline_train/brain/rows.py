"""The batches of an epoch: rows, each the mean of some repeats of a stimulus, and their images.

Trials are held where the model is, as far as there is room for them; else a thread reads the next
batches from the disk while the model learns from this one. Both give the same numbers. What was
read of a file that is mapped into memory is let go of again.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor

from offline_train.brain.settings import TrainSettings
from offline_train.data.trial_set import TrialSet
from offline_train.together import Group

_SHARE = 0.5
"""Of the memory that is free, which trials may take by default."""
_MOST_BYTES = 4e9
"""Of the host's memory, however much is free: reading ahead costs hardly any time there."""
_BLOCK = 256
"""Rows that are brought to the device at a time."""
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Rows on the device."""

    trials: Tensor
    """float32 (rows, channels, times), of this process's share of the rows."""
    shown: Tensor
    """int64 (images,), positions in the trial set's items: what was shown."""
    owner: Tensor
    """int64 (rows,), the place in `shown` of each row's image."""


class Rows:
    """Draws the rows of epochs from a trial set; none of them mixes subjects."""

    def __init__(self, trial_set: TrialSet, settings: TrainSettings, group: Group) -> None:
        self._set, self._settings = trial_set, settings
        self._group, self._device = group, group.device

    @cached_property
    def n(self) -> int:
        """Rows of an epoch.

        Raises:
            Problem: when a stimulus has fewer repeats than are to be averaged.
        """
        return len(self._draw(np.random.default_rng(0))[0])

    @cached_property
    def is_held(self) -> bool:
        """Whether all trials are, or would be, where the model is."""
        n_units = self.n if self._settings.repeats_per_row is None else len(self._set)
        size = n_units * int(np.prod(self._set.data.shape[1:])) * 4
        if self._settings.held_gb is not None:
            return size <= 1e9 * self._settings.held_gb
        if self._device.type == "cuda":
            return size <= _SHARE * torch.cuda.mem_get_info(self._device)[0]
        # As if all processes were on this machine.
        return self._group.n * size <= min(_SHARE * psutil.virtual_memory().available, _MOST_BYTES)

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        """The batches of an epoch, all drawn from `rng`.

        Raises:
            Problem: when a stimulus has fewer repeats than are to be averaged.
        """
        drawn = self._drawn(rng)
        return drawn if self.is_held else _read_ahead(drawn)

    def _drawn(self, rng: np.random.Generator) -> Iterator[Batch]:
        settings = self._settings
        items, groups = self._draw(rng)
        order = rng.permutation(len(groups))
        if self.is_held and settings.repeats_per_row is None:  # what is held are the rows
            groups = [np.array([row]) for row in range(len(groups))]
        for start in range(0, len(order), settings.batch_size):
            rows = order[start : start + settings.batch_size]
            own = self._group.share(len(rows))
            trials = self._means([groups[row] for row in rows[own]])
            self._shorten(trials, own, len(rows), rng)
            if settings.positives == "row":
                shown, owner = items[rows], np.arange(len(rows))
            else:
                shown, owner = np.unique(items[rows], return_inverse=True)
            yield Batch(
                trials,
                torch.from_numpy(shown).to(self._device),
                torch.from_numpy(owner).to(self._device),
            )

    @cached_property
    def _subjects(self) -> list[tuple[TrialSet, np.ndarray]]:
        """The trials of each subject, and where they are in the set."""
        subject = self._set.table.get("subject")
        codes = np.zeros(len(self._set), np.int32) if subject is None else subject.codes
        places = [np.flatnonzero(codes == code) for code in np.unique(codes)]
        return [(self._set.subset(place), place) for place in places]

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
        """The position of each row's stimulus in `items`, and those of its trials in the set."""
        number = {item: n for n, item in enumerate(self._set.items)}
        owners, groups = [np.empty(0, np.int64)], list[np.ndarray]()
        for own, places in self._subjects:
            items, drawn = own.draw_repeats(
                self._settings.repeats_per_row, rng, self._settings.rows_per_item
            )
            names = np.array([number[item] for item in own.items])
            owners.append(names[items])
            groups += [places[group] for group in drawn]
        return np.concatenate(owners), groups

    def _units(self) -> list[np.ndarray]:
        """What would be held: trials or, where the rows are always the same, these."""
        if self._settings.repeats_per_row is None:
            return self._draw(np.random.default_rng(0))[1]
        return [*np.arange(len(self._set))[:, None]]

    @cached_property
    def _held(self) -> Tensor:
        units = self._units()
        held = torch.empty((len(units), *self._set.data.shape[1:]), device=self._device)
        for start in range(0, len(units), _BLOCK):
            block = self._read(units[start : start + _BLOCK])
            held[start : start + _BLOCK] = torch.from_numpy(block)
        return held

    def _read(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        means = self._set.mean(groups)
        self._set.let_go()
        return means

    def _means(self, groups: Sequence[np.ndarray]) -> Tensor:
        """The mean trial of each group."""
        if not self.is_held:
            means = torch.from_numpy(self._read(groups)).to(self._device)
        else:
            places = torch.from_numpy(np.stack(groups, axis=1)).to(self._device)
            means = self._held.index_select(0, places[0])  # twice as fast as with brackets
            for more in places[1:]:  # one after the other, as NumPy adds them
                means += self._held[more]
            if len(places) > 1:
                means /= means.new_tensor(len(places))
        return means.half().float() if self._settings.half_means else means

    def _shorten(self, trials: Tensor, own: slice, n: int, rng: np.random.Generator) -> None:
        """Sets what lies behind a random time to 0, in place, in some of the trials of a batch."""
        settings, n_times = self._settings, trials.shape[2]
        if not settings.prefix_share:
            return
        shortest = min(n_times, max(1, round(settings.prefix_min_s * self._set.format.rate_hz)))
        ends = rng.integers(shortest, n_times + 1, n)
        ends[rng.random(n) >= settings.prefix_share] = n_times
        behind = torch.arange(n_times) >= torch.from_numpy(ends[own])[:, None]
        trials.masked_fill_(behind[:, None].to(self._device), 0)


def _read_ahead(batches: Iterator[T], n: int = 2) -> Iterator[T]:
    """The same, but the next ones are made in a thread meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        coming = deque(reader.submit(next, batches, None) for _ in range(n))
        while (batch := coming.popleft().result()) is not None:
            coming.append(reader.submit(next, batches, None))
            yield batch
