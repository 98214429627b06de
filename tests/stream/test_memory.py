"""A decoder that was started in another's place answers as if it were that one."""

from dataclasses import replace

import numpy as np
import pytest

from stream.pipeline.memory import Learnt, Memory
from stream.pipeline.nodes.decode import Decoder
from stream.pipeline.wire.config import Endpoints, LiveSource, SessionConfig
from stream.pipeline.wire.messages import TrialSlice
from tests.refs import about
from tests.toy_decoder import EMBEDDINGS, GALLERY, N_SLICES, NAMES, live_decoder

N_TRIALS = 24


def config_of(folder):
    folder.mkdir(exist_ok=True)
    return SessionConfig(
        session="s",
        folder=folder,
        endpoints=Endpoints(**dict.fromkeys(Endpoints.model_fields, "ipc:///x")),
        source=LiveSource(eeg="eeg", markers="markers"),
    )


def decoder_in(folder, evidence="mean"):
    return Decoder(config_of(folder), live_decoder(evidence), GALLERY, pytest.fail)


def slices(trial, block=0):
    """Of a presentation of every second stimulus in turn, with much noise."""
    name = trial % 2
    noise = np.random.default_rng(trial).normal(0, 2, (N_SLICES, 2, 1)).astype(np.float32)
    for first in range(N_SLICES):
        yield TrialSlice(
            about=about(trial, stimulus=NAMES[name], group=NAMES[name], block=block),
            first=first,
            corrects=0,
            final=first == N_SLICES - 1,
            residual_s=0.0,
            stamps={"window_end": 0.0},
            array=EMBEDDINGS[name][:, None] + noise[first],
        )


def answers_to(decoder, trial, n_slices=N_SLICES, block=0):
    """All but the stamps of what is said to the first slices of a trial."""
    said = []
    for part in list(slices(trial, block))[:n_slices]:
        said += [replace(report, stamps={}) for report, _ in decoder.take(part)]
        decoder.keep()
    return said


@pytest.mark.parametrize("evidence", ["mean", "added"])
@pytest.mark.parametrize("n_slices", range(N_SLICES + 1))
def test_answers_after_a_restart_are_those_without_one(evidence, n_slices, tmp_path):
    """It dies in trial 10, of which it had some slices; the reader sends that one again."""
    lived = decoder_in(tmp_path / "lived", evidence)
    expected = [answers_to(lived, trial) for trial in range(1, N_TRIALS)]
    died = decoder_in(tmp_path / "died", evidence)
    told = [answers_to(died, trial) for trial in range(1, 10)]
    answers_to(died, 10, n_slices)
    again = decoder_in(tmp_path / "died", evidence)
    told += [answers_to(again, trial) for trial in range(10, N_TRIALS)]
    assert told == expected
    assert expected[-1][-1].answer.n_repeats == 12


def test_a_trial_that_comes_again_gets_its_own_answer_again(tmp_path):
    decoder = decoder_in(tmp_path / "s")
    said = [answers_to(decoder, trial) for trial in range(1, 8)]
    assert [answers_to(decoder, trial) for trial in range(1, 8)] == said
    again = decoder_in(tmp_path / "s")
    assert [answers_to(again, trial) for trial in range(1, 8)] == said
    assert answers_to(again, 9)[-1].answer.n_repeats == 5


def test_a_group_that_began_anew_is_not_remembered(tmp_path):
    decoder = decoder_in(tmp_path / "s")
    for trial in range(1, 7):
        answers_to(decoder, trial)
    decoder.obey("reset_group", NAMES[0])
    again = decoder_in(tmp_path / "s")
    assert answers_to(again, 8)[-1].answer.n_repeats == 1
    assert answers_to(again, 9)[-1].answer.n_repeats == 4


@pytest.mark.parametrize("evidence", ["mean", "added"])
def test_trials_of_two_blocks_that_overlap_are_never_put_together(tmp_path, evidence):
    """Trials 6 and 7 come slice by slice in turn: each answer is that of its block alone."""
    blocks = {trial: int(trial > 6) for trial in range(1, 13)}
    alone = [decoder_in(tmp_path / f"alone {block}", evidence) for block in (0, 1)]
    expected = {
        trial: answers_to(alone[block], trial, block=block) for trial, block in blocks.items()
    }
    both = decoder_in(tmp_path / "both", evidence)
    told = {trial: answers_to(both, trial) for trial in range(1, 6)} | {6: [], 7: []}
    for couple in zip(slices(6), slices(7, 1), strict=True):
        for part in couple:
            told[part.about.trial] += [replace(said, stamps={}) for said, _ in both.take(part)]
            both.keep()
    told |= {trial: answers_to(both, trial, block=1) for trial in range(8, 13)}
    assert told == expected
    assert [told[trial][-1].answer.n_repeats for trial in (6, 7, 12)] == [3, 1, 3]
    both.obey("reset_group", NAMES[0])  # in the newest block
    again = decoder_in(tmp_path / "both", evidence)
    assert answers_to(again, 14, block=0)[-1].answer.n_repeats == 4
    assert answers_to(again, 16, block=1)[-1].answer.n_repeats == 1


def test_a_file_that_was_cut_at_any_byte_is_used_as_far_as_it_is_whole(tmp_path):
    path, shape = tmp_path / "kept" / "memory", (2, 3)
    memory = Memory(path, shape)
    ends = [0]
    for trial in range(4):
        memory.learn(Learnt("ü", trial, np.full(shape, trial, np.float32), ()))
        ends.append(path.stat().st_size)
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        n_whole = sum(end <= length for end in ends) - 1
        assert [one.trial for one in Memory(path, shape).recalled()] == list(range(n_whole))
        assert path.stat().st_size == ends[n_whole]
        after = Memory(path, shape)
        after.learn(Learnt("b", 9, np.ones(shape), ()))
        assert [one.trial for one in after.recalled()] == [*range(n_whole), 9]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    (tmp_path / "memory").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left.*memory") as caught:
        Memory(tmp_path / "memory", (1,)).forget("a")
    assert caught.value.filename == str(tmp_path / "memory")


def test_damage_ends_what_is_recalled_and_raises_nothing(tmp_path):
    path, shape = tmp_path / "kept" / "memory", (2, 3)
    memory = Memory(path, shape)
    for trial in range(3):
        memory.learn(Learnt("a", trial, np.full(shape, trial, np.float32), ()))
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        assert len(list(Memory(path, shape).recalled())) <= 3
