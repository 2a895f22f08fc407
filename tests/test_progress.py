"""How far a job is: what it tells, when it tells nothing, and that it never stands in the way."""

import itertools
import json
import math
import time

import pytest

from vqdistill import progress


@pytest.fixture
def clock(monkeypatch):
    """The seconds that a job thinks have passed."""
    now = itertools.count(1000, 10)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(now)))


def told(path):
    return progress.read(path, since=0.0)


def test_the_time_left_is_what_the_rest_takes_at_the_speed_so_far(tmp_path, clock):
    """Ten seconds pass from one look at the clock to the next."""
    path = tmp_path / progress.FILE
    with progress.telling(path), progress.loop("epoch", 4) as epochs:
        assert told(path) == {"at": "epoch 1 of 4"}
        epochs.advance(loss=0.5)  # 20 s after the beginning
        assert told(path) == {"at": "epoch 2 of 4", "loss": 0.5, "seconds_left": 60.0}
        epochs.advance(loss=0.25)
        assert told(path) == {"at": "epoch 3 of 4", "loss": 0.25, "seconds_left": 30.0}


def test_a_loop_within_a_loop_makes_its_share_finer(tmp_path, clock):
    path = tmp_path / progress.FILE
    with progress.telling(path), progress.loop("epoch", 2), progress.loop("batch", 4) as batches:
        assert told(path) == {"at": "epoch 1 of 2"}
        batches.advance(2)  # a quarter of all, 40 s after the beginning
        assert told(path) == {"at": "epoch 1 of 2", "seconds_left": 120.0}


def test_what_was_done_before_took_no_time(tmp_path, clock):
    """A training that goes on from its fifth epoch of ten."""
    path = tmp_path / progress.FILE
    with progress.telling(path), progress.loop("epoch", 10, done=4) as epochs:
        assert told(path) == {"at": "epoch 5 of 10"}
        epochs.advance()  # one of six, 20 s after the beginning
        assert told(path)["seconds_left"] == pytest.approx(100.0)


def test_items_count_as_much_as_they_are_large(tmp_path, clock):
    path, found = tmp_path / progress.FILE, []
    with progress.telling(path):
        for item in progress.track("ab", "component", [1, 3999]):
            found.append((item, told(path)["at"]))
    assert found == [("a", "component 1 of 4,000"), ("b", "component 2 of 4,000")]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_told(tmp_path, clock, loss):
    path = tmp_path / progress.FILE
    with progress.telling(path), progress.loop("epoch", 0) as epochs:
        epochs.advance(loss=loss)
        assert str(told(path)["loss"]) == str(loss)
        assert progress.words(told(path))[1] == f"loss {loss}"


def test_the_file_is_written_once_a_second_at_most(tmp_path):
    path = tmp_path / progress.FILE
    with progress.telling(path), progress.loop("batch", 10**6) as batches:
        path.unlink()
        end = time.perf_counter() + progress.EVERY / 2
        while time.perf_counter() < end:
            batches.advance()
            assert not path.exists()


def job(path, error):
    with progress.telling(path), progress.loop("epoch", 3):
        assert path.exists()
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_the_file_goes_with_the_job(tmp_path, error):
    with pytest.raises(error):
        job(tmp_path / progress.FILE, error)
    assert list(tmp_path.iterdir()) == []


def test_without_a_place_to_tell_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with progress.loop("epoch", 3) as epochs:
        epochs.advance()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_disturbs_no_job(tmp_path, clock):
    file = tmp_path / "file"
    file.touch()
    with progress.telling(file / progress.FILE), progress.loop("epoch", 3) as epochs:
        epochs.advance()
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", ["", '{"at": "epo'])
def test_what_cannot_be_read_is_as_if_nothing_was_told(tmp_path, content):
    path = tmp_path / progress.FILE
    path.write_text(content)
    assert told(path) == {}
    assert progress.words({}) == ["", "", ""]


def test_what_a_killed_job_has_told_is_not_told_of_the_next(tmp_path):
    path = tmp_path / progress.FILE
    path.write_text(json.dumps({"at": "epoch 3 of 7"}))
    assert told(path)
    assert progress.read(path, since=time.time() + 60) == {}


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (36_000, "10:00:00")]
)
def test_clock(seconds, shown):
    assert progress.clock(seconds) == shown
