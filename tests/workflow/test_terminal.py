"""What a person sees of a run, on a terminal and elsewhere, whether it goes well or not."""

import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT, environment
from snakemake.settings.types import OutputSettings
from snakemake_logger_plugin_vqdistill import LogHandler

SLURM = ROOT / "workflow/profiles/slurm"
SECONDS = 240  # until a Snakemake on a busy machine has got anywhere
NOISE = re.compile(r"Exception|CalledProcessError|Traceback|message:|shell:|jobid")
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
STEPS = """
rule all:
    input: expand("{name}/record.json", name=["good", "bad", "killed", "odd"])
rule step:
    output: "{name}/record.json"
    log: "logs/{name}.log"
    shell: "(%s) > {log} 2>&1"
rule answer:
    log: "answer.log"
    shell: "for n in 1 2 3; do echo line $n; sleep 0.4; done 2>&1 | tee {log}"
"""
THREE_ENDS = (
    "echo 2026-01-01 begun; case {wildcards.name} in bad) echo step: no such thing; exit 1;;"
    " killed) kill -9 $$;; odd) exit 137;; esac; touch {output}"
)
WAITING = "until [ -e {wildcards.name}.go ]; do sleep 0.1; done; touch {output}"
TOLD = {"at": "epoch 3 of 7", "loss": 1.25, "seconds_left": 72.4}


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not happened() and time.monotonic() < end:
        time.sleep(0.05)


class Run:
    """Snakemake in a folder, on a terminal or not, and what it has said so far."""

    def __init__(self, folder: Path, command: str, *words: str | Path, terminal: bool) -> None:
        (folder / "Snakefile").write_text(STEPS % command)
        inside, outside = pty.openpty()
        self.text, ours = "", outside
        if not terminal:
            inside, ours = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--logger", "vqdistill", "--cores", "2", *words],
            cwd=folder, env=environment() | {"TERM": "xterm", "COLUMNS": "100"},
            stdin=subprocess.DEVNULL, stdout=ours, stderr=ours, start_new_session=True,
        )  # fmt: skip
        os.close(ours)
        self.reader = threading.Thread(target=self._read, args=(inside,), daemon=True)
        self.reader.start()

    def _read(self, end: int) -> None:
        while True:
            try:
                said = os.read(end, 65536)
            except OSError:  # of a terminal that nobody writes to any longer
                said = b""
            if not said:
                return
            self.text += CODES.sub("", said.decode())

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.text or not self.reader.is_alive())
        assert text in self.text, self.text

    def end(self) -> tuple[int, list[str]]:
        """Its status, and the lines that it has said."""
        status = self.process.wait(SECONDS)
        self.reader.join()
        return status, [line.strip() for line in re.split(r"[\r\n]+", self.text) if line.strip()]


@pytest.fixture
def start(tmp_path):
    """Starts Snakemake in the test's folder; ends it with the test."""
    runs = []

    def begin(*words: str, terminal: bool) -> Run:
        runs.append(Run(tmp_path, *words, terminal=terminal))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)


def log(handler: LogHandler, event: str, msg: str = "", **facts) -> None:
    """What Snakemake would log."""
    handler.emit(logging.makeLogRecord({"event": event, "msg": msg, **facts}))


def test_where_nobody_watches_a_line_tells_of_each_step_and_of_each_failure(start):
    status, lines = start(THREE_ENDS, "--keep-going", terminal=False).end()
    said = "\n".join(lines)
    assert status == 1
    assert not NOISE.search(said), said
    assert max(map(len, lines)) < 200
    assert re.search(r"^\d\d:\d\d:\d\d +begun +step good: logs/good.log$", said, re.M), said
    assert re.search(r"^\d\d:\d\d:\d\d +1 of 5 +step good: 0:\d\d$", said, re.M), said
    assert "step bad failed: no such thing (logs/bad.log)" in lines
    killed = next(line for line in lines if line.startswith("step killed failed: "))
    assert "SIGKILL; the last line of its log is: 2026-01-01 begun (logs/killed.log)" in killed
    odd = next(line for line in lines if line.startswith("step odd failed: "))
    assert "exit status 137; the last line of its log is: 2026-01-01 begun" in odd
    assert lines[-1].startswith("3 failed, 1 of 5 steps are done.")
    assert "The same command goes on" in lines[-1]


def test_a_watched_run_has_one_table_of_its_running_steps(start, tmp_path):
    run = start(WAITING, "good/record.json", "bad/record.json", terminal=True)
    run.wait_for("step good")
    (tmp_path / "good/progress.json").write_text(json.dumps(TOLD))
    run.wait_for("1:12 left")
    assert re.search(r"step good +0:\d\d +epoch 3 of 7 +loss 1.250 +1:12 left", run.text), run.text
    (tmp_path / "good.go").touch()
    run.wait_for("1 of 2 steps")
    (tmp_path / "bad.go").touch()
    status, lines = run.end()
    assert status == 0
    assert re.search(r"2 of 2 steps are done, in \d:\d\d$", lines[-1]), run.text
    assert any(line.endswith("last: step good") for line in lines), run.text
    assert not NOISE.search(run.text)


def test_a_step_that_answers_has_the_terminal_for_itself(start):
    status, lines = start("true", "answer", terminal=True).end()
    assert status == 0
    assert lines == ["line 1", "line 2", "line 3"]


def test_a_step_that_succeeds_when_it_is_tried_again_has_not_failed(start):
    once = "mkdir {wildcards.name}.tried || exit 0; false"
    words = ["good/record.json", "--retries", "1"]
    status, lines = start(f"({once}); touch {{output}}", *words, terminal=False).end()
    assert status == 0
    assert sum(line.startswith("step good failed: ") for line in lines) == 1
    assert re.search(r"^1 of 1 steps are done, in \d:\d\d$", lines[-1]), lines


def test_an_interrupted_run_ends_with_how_to_go_on(start, tmp_path):
    run = start(": > {wildcards.name}.begun; exec sleep 600", terminal=True)
    wait_until(lambda: len(list(tmp_path.glob("*.begun"))) == 2)  # one a core
    os.killpg(run.process.pid, signal.SIGINT)
    status, lines = run.end()
    assert status == 1
    assert not NOISE.search(run.text), run.text
    expected = "Interrupted: 0 of 5 steps are done. The same command goes on from there."
    assert lines[-1].endswith(expected)
    assert "failed" not in run.text


def test_failures_on_a_cluster_have_the_word_of_the_scheduler(tmp_path, monkeypatch, capsys):
    """As the executor logs them: a job, and a group of which one job failed."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    handler = LogHandler(OutputSettings(), None)
    logs = {"first": "begun", "second": "all done in 3 s", "third": "rule: no such thing"}
    for number, (name, text) in enumerate(logs.items()):
        (tmp_path / name).write_text(f"{text}\n")
        log(handler, "run_info", stats={"total": 4})
        facts = {"jobid": number, "rule_name": "rule", "log": [str(tmp_path / name)]}
        facts |= {"shellcmd": f"run {name}", "wildcards": {"name": name}, "output": [], "input": []}
        log(handler, "job_info", **facts)
        state = "OUT_OF_MEMORY" if name == "first" else "FAILED"
        said = f"SLURM-job '7' failed, SLURM status is: '{state}'. For further error details see"
        log(handler, "job_error", **facts, rule_msg=said, indent=name != "first")
    failed = [line for line in capsys.readouterr().err.splitlines() if " failed: " in line]
    end = "SLURM-job '7' failed, SLURM status is: '{}'; the last line of its log is: {} ({})"
    assert failed == [
        "rule first failed: " + end.format("OUT_OF_MEMORY", "begun", tmp_path / "first"),
        "rule third failed: " + end.format("FAILED", "no such thing", tmp_path / "third"),
    ]
    log(handler, "group_error", msg="Error in group g", aux_logs=["slurm.log"])
    assert capsys.readouterr().err == "Error in group g (slurm.log)\n"
    handler.close()
    assert capsys.readouterr().err.splitlines()[-1].startswith("2 failed, 0 of 4 steps are done.")
    handler.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_a_dry_run_lists_a_step_a_line_with_its_reason(start, quiet):
    words = ["--dry-run", *(["--quiet", "rules"] if quiet else [])]
    status, lines = start(THREE_ENDS, *words, terminal=False).end()
    assert status == 0
    reason = "missing output files: killed/record.json"
    assert lines.count(f"step killed: {reason}") == (not quiet)
    assert re.search(r"^total +5$", "\n".join(lines), re.M)


@pytest.mark.parametrize(
    "profile",
    [[], ["--profile", SLURM], ["--workflow-profile", SLURM]],
    ids=["default", "beside slurm", "slurm"],
)
@pytest.mark.parametrize(
    ("target", "meant"),
    [("dmbss", "dmbs"), ("results/paper/figures/figur1.png", "results/paper/figures/figure1.png")],
)
def test_an_unknown_target_is_told_what_it_is_near_to(tmp_path, profile, target, meant):
    """By the profile that Snakemake finds beside the Snakefile, wherever it is called, too."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", target, "--snakefile", ROOT / "Snakefile",
         "--configfile", ROOT / "config.yaml", *profile],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith(target))
    assert f"did you mean {meant}?" in line
    assert "all, prepare_data, " in line
    assert not NOISE.search(done.stdout), done.stdout


@pytest.mark.parametrize("path", ["nope.yaml", "."])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path, path):
    """Snakemake reads it before it looks at any Snakefile."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--snakefile", ROOT / "Snakefile",
         "--configfile", path],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"--configfile {path}: " in done.stdout.splitlines()[-1]
    assert not NOISE.search(done.stdout), done.stdout
