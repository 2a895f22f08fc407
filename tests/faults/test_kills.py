"""Steps that are killed or asked to leave: nothing half-written, and the same results after it."""

import os
import signal
import time
from pathlib import Path

import pytest
from tiny_experiment import (
    CONFIG,
    SERVER,
    check_as_undisturbed,
    contents,
    files_of,
    hidden,
    one_line,
    pick,
    run,
    start,
    wait_for,
    without_outputs,
)

from vqdistill import files, progress

TRAINED = ["vqvae-2x2-K4", "prior-2x2-K4", "cm", "einet-2", "gmm-3", "classifier"]
OTHERS = {  # the write in which each is killed
    "prepare_data": 1,
    "distil": 2,
    "evaluate_teacher": 4,
    "evaluate_baseline": 2,
    "tabulate": 7,
}
GRACE = 30  # seconds


class AtBatch:
    """Sends the process a signal in the midst of the third epoch, after its first batch."""

    def __init__(self, kind: signal.Signals) -> None:
        self.kind, self.epochs = kind, 0

    def __call__(self) -> None:
        begin, advance = progress.Loop.__init__, progress.Loop.advance

        def counted(loop, what, *rest):
            self.epochs += what == "batch"
            begin(loop, what, *rest)

        def stopped(loop, *n, **values):
            if loop.what == "batch" and self.epochs == 3:
                self.epochs = 0  # once
                os.kill(os.getpid(), self.kind)
            advance(loop, *n, **values)

        progress.Loop.__init__, progress.Loop.advance = counted, stopped


class AtWrite:
    """Kills the process when a file is written but has not its name yet."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> None:
        original = Path.replace

        def replace(path, target):
            self.left -= Path(target).name != progress.FILE  # which comes as time goes by
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(path, target)

        Path.replace = replace


@pytest.mark.parametrize("model", TRAINED)
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_training_goes_on_to_the_same_weights(commands, undisturbed, folder, log, model, kind):
    """Stopped in epoch 3, it ends with the weights of the undisturbed run, to the bit."""
    command = pick(commands, "train", f"models/{model}/seed-0/weights")
    without_outputs(command, folder)
    process = start(command, folder, log, AtBatch(kind))
    process.join()
    if kind == signal.SIGKILL:
        assert process.exitcode == -signal.SIGKILL
    else:
        assert process.exitcode == 1
        assert "interrupted" in one_line(log)
    assert not files_of(folder, command.outputs())
    said = run(command, folder, log)
    assert "after epoch 2\n" in said
    assert f"epoch 2/{CONFIG['training']['max_epochs']}" not in said
    check_as_undisturbed(command, folder, undisturbed)
    assert not (folder / command.values("checkpoint")[0]).exists()


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(commands, folder, log):
    command = pick(commands, "train_baseline", "einet-2")
    without_outputs(command, folder)
    start(command, folder, log, AtBatch(signal.SIGKILL)).join()
    said = run(command.with_training(max_epochs=1), folder, log)
    assert "training starts anew" in said
    assert "going on from" not in said


@pytest.mark.parametrize("name", ["train_vqvae", "evaluate_teacher"])
def test_a_step_leaves_within_its_period_of_grace(commands, folder, log, name):
    """SIGTERM from outside, at any moment, as schedulers send it before they kill."""
    command = pick(commands, name)
    if name == "train_vqvae":
        command = command.with_training(max_epochs=10_000, patience=10_000)
    without_outputs(command, folder)
    process = start(command, folder, log)
    wait_for(lambda: log.read_text().count("\n") > 2, process)
    wait_for(lambda: [*folder.rglob(progress.FILE)], process)  # it says how far it is
    process.terminate()
    sent = time.monotonic()
    process.join()
    assert time.monotonic() - sent < GRACE
    assert process.exitcode == 1
    assert one_line(log).startswith(f"{name}: interrupted")
    assert not files_of(folder, command.outputs())
    assert not [*hidden(folder), *folder.rglob(progress.FILE)]


@pytest.mark.parametrize("name", OTHERS)
def test_a_killed_step_leaves_whole_files(commands, undisturbed, folder, log, name):
    """And gives the same again, with nothing of its first attempt left."""
    command = pick(commands, name)
    without_outputs(command, folder)
    process = start(command, folder, log, AtWrite(OTHERS[name]))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left, whole = (contents(place, command.outputs()) for place in (folder, undisturbed))
    assert len(hidden(folder)) == 1
    left = {path: content for path, content in left.items() if not Path(path).name.startswith(".")}
    assert len(left) == OTHERS[name] - 1
    assert all(whole[path] == content for path, content in left.items())
    run(command, folder, log)
    check_as_undisturbed(command, folder, undisturbed)


def write_until_killed(path: Path) -> None:
    with files.replacing(path) as temporary:
        temporary.write_text("half a fi")
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    path = tmp_path / "table.json"
    files.write_json(path, "earlier")
    process = SERVER.Process(target=write_until_killed, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 1
    assert files.read_json(path) == "earlier"
    with files.replacing(path) as running:  # a writer that lives keeps what it writes
        files.write_json(path, "later")
        assert hidden(tmp_path) == [running]
        running.write_text('"last"')
    assert files.read_json(path) == "last"
    assert not hidden(tmp_path)


def test_two_trainings_in_one_folder_end_with_the_same_weights(
    commands, undisturbed, folder, tmp_path
):
    """As after a kill of Snakemake, whose orphan goes on while the workflow is started again."""
    command = pick(commands, "train_baseline", "einet-2")
    without_outputs(command, folder)
    both = [start(command, folder, tmp_path / f"log{n}") for n in (0, 1)]
    for process in both:
        process.join()
    logs = [(tmp_path / f"log{n}").read_text() for n in (0, 1)]
    assert [process.exitcode for process in both] == [0, 0], logs
    check_as_undisturbed(command, folder, undisturbed)
