"""What a person sees of a run: `--logger vqdistill` of Snakemake, as profiles/default has it.

On a terminal that is one live table of the running steps, with the number of those done below it;
elsewhere it is a line as a step begins and one as it ends. A step that fails is told in one line,
the last one of its log. A dry run lists a step a line. With `--verbose` all messages are
Snakemake's own, which it keeps in .snakemake/log/ of every run.
"""

import difflib
import importlib
import os
import re
import sys
import time
from dataclasses import dataclass
from logging import ERROR, WARNING, LogRecord
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase

# Messages of Snakemake that tell a person nothing, or what is told in other words here.
HIDDEN = re.compile(
    r"Building DAG|Using shell|Select jobs|Assuming unrestricted|Complete log|Elapsed time"
    r"|Conda environments: ignored|Group jobs: inactive|Config file .* is extended"
    r"|Shutting down|Terminating processes|Removing output files of failed job"
    r"|Exiting because a job execution failed|(WorkflowError:\s+)?At least one job did not complete"
)
FAILED_COMMAND = re.compile(
    r"CalledProcessError.* (?:returned non-zero|died with <Signals\.)(.*?)(?:: \d+>)?\.$", re.DOTALL
)
NO_RULE = re.compile(r"No rule to produce (.*) \(if you use")
UNREADABLE = re.compile(r"_load_configfile.*\[Errno \d+\] (.*): (.*)", re.DOTALL)
INTERRUPTED = re.compile(r": interrupted;|KeyboardInterrupt|SIGINT")
GO_ON = "The same command goes on from there."


def progress() -> ModuleType:
    """vqdistill.progress of the clone that the Snakefile lies in: steps begin when it is on the
    path, and this module is imported before."""
    return importlib.import_module("vqdistill.progress")


@dataclass
class Step:
    """A job that has begun, or would begin in a dry run."""

    name: str
    outputs: list[str]
    logs: list[str]
    is_target: bool  # it makes nothing, but names what is to be made
    speaks: bool  # on the terminal, and not in its log alone
    begun: float  # as time.time() gives it

    def seconds(self) -> str:
        return progress().clock(time.time() - self.begun)

    def told(self) -> list[str]:
        """How far it says it is, in words."""
        told: dict[str, Any] = {}
        for path in map(Path, self.outputs):
            if path.name == "record.json":
                told = progress().read(path.with_name(progress().FILE), self.begun)
        return progress().words(told)


class LogHandler(LogHandlerBase):
    """Shows what Snakemake logs; each of its events has the method `on_<event>`."""

    writes_to_stream = has_filter = has_formatter = True
    writes_to_file = needs_rulegraph = False

    def __post_init__(self) -> None:
        common = self.common_settings
        stream = sys.stdout if common.stdout else sys.stderr
        self.own = ColorizingTextHandler(
            common.nocolor, stream, DefaultFormatter(common.quiet, common.show_failed_logs)
        )
        self.filter_of_options = DefaultFilter(
            common.quiet, common.debug_dag, common.verbose, common.dryrun, common.printshellcmds
        )
        tty, plain = stream.isatty(), common.nocolor or None
        self.console = Console(file=stream, force_terminal=tty, no_color=plain, highlight=False)
        self.is_watched = tty and not common.dryrun and os.environ.get("TERM") != "dumb"
        self.live: Live | None = None
        self.begun, self.done, self.total = time.time(), 0, 0
        self.steps: dict[int, Step] = {}  # by Snakemake's number of a job
        self.running: dict[int, Step] = {}
        self.last = ""  # what was done last
        self.ends: list[str] = []  # how commands failed, in Snakemake's words
        self.failed: set[str] = set()
        self.wanted: list[str] = []  # the files that were asked for by a name
        self.is_interrupted = False
        self.targets: list[str] = []  # that can be asked for
        sys.excepthook = interrupts_in_one_line

    def emit(self, record: LogRecord) -> None:
        event = getattr(record, "event", None) or "message"
        try:
            if self.common_settings.verbose or self.common_settings.debug_dag:
                if self.wants(record):
                    self.own.emit(record)
            elif method := getattr(self, f"on_{event}", None):
                method(record)
        except Exception:
            self.handleError(record)

    def wants(self, record: LogRecord) -> bool:
        """Whether options such as --quiet leave a record to be shown."""
        return self.filter_of_options.filter(record)

    def say(self, message: str, style: str = "") -> None:
        self.console.print(Text(message, style), soft_wrap=True)

    def on_message(self, record: LogRecord) -> None:
        message = record.getMessage()
        self.is_interrupted |= message.startswith("Terminating processes")
        if message not in ("", "None") and not HIDDEN.match(message) and self.wants(record):
            styles = ((ERROR, "red"), (WARNING, "yellow"), (0, ""))
            self.say(message, next(style for level, style in styles if record.levelno >= level))

    def on_targets(self, record: LogRecord) -> None:
        self.targets = record.targets

    def on_error(self, record: LogRecord) -> None:
        message = record.getMessage()
        if FAILED_COMMAND.search(message):
            self.ends.append(message)  # on_job_error tells of it
        elif (missing := NO_RULE.search(message)) and self.targets:
            self.say(unknown_target(missing[1], self.targets), "red")
        elif unreadable := UNREADABLE.search(message):
            reason, path = unreadable[1].lower(), unreadable[2].strip().strip("'")
            example = "such as workflow/presets/quick.yaml"
            self.say(f"--configfile {path}: {reason}; expected a YAML file, {example}", "red")
        else:
            self.on_message(record)

    def on_run_info(self, record: LogRecord) -> None:
        self.total = record.stats["total"]
        if self.common_settings.dryrun and self.steps and self.wants(record):
            self.say(record.getMessage())

    def on_shellcmd(self, record: LogRecord) -> None:
        if self.wants(record) and (command := getattr(record, "shellcmd", None)):
            self.say(command)

    def on_job_info(self, record: LogRecord) -> None:
        command = record.shellcmd or ""
        name = " ".join([record.rule_name, *in_words(record.wildcards)])
        speaks = "| tee" in command
        step = Step(name, record.output, record.log, not command, speaks, record.created)
        self.steps[record.jobid] = step
        if self.common_settings.dryrun:
            if self.wants(record):
                self.say(f"{name}: {in_short(record.reason)}")
            return
        self.wanted += record.input if step.is_target else []
        self.running[record.jobid] = step
        self.show()
        self.note(record, step, "begun", f"{name}: {', '.join(record.log)}")

    def on_job_finished(self, record: LogRecord) -> None:
        self.done += 1
        step = self.running.pop(record.job_id, None)
        if not step:  # by --touch
            return
        self.last = self.last if step.is_target else step.name
        self.failed.discard(step.name)  # it was tried again
        self.show()
        self.note(record, step, f"{self.done} of {self.total}", f"{step.name}: {step.seconds()}")

    def note(self, record: LogRecord, step: Step, what: str, message: str) -> None:
        """A line where nobody watches the display."""
        if not (self.is_watched or step.is_target or step.speaks) and self.wants(record):
            self.say(f"{time.strftime('%H:%M:%S')}  {what:10}  {message}")

    def on_progress(self, record: LogRecord) -> None:
        self.done, self.total = record.done, record.total

    def on_job_error(self, record: LogRecord) -> None:
        self.running.pop(record.jobid, None)
        self.show()
        command, last = record.shellcmd or "", last_line(record.log)
        end = next((e for e in reversed(self.ends) if command in e), "")
        how = FAILED_COMMAND.search(end)[1].strip() if end else (record.rule_msg or "")
        if not record.rule_msg and INTERRUPTED.search(f"{last} {how}"):
            self.is_interrupted = True
        elif not (record.indent and (not last or " done in " in last)):  # others of a group did
            step, last = self.steps[record.jobid], last.removeprefix(f"{record.rule_name}: ")
            if how not in ("", "exit status 1"):  # it did not end by what it said itself
                how = re.split(r"\.\s|\n", how)[0]
                last = f"{how}; the last line of its log is: {last}"
            self.failed.add(step.name)
            logs = "" if step.speaks else f" ({', '.join(record.log)})"
            self.say(f"{step.name} failed: {last}{logs}", "red")

    def on_group_error(self, record: LogRecord) -> None:
        self.say(f"{record.getMessage()} ({', '.join(record.aux_logs)})", "red")

    def show(self) -> None:
        """Begin or end the display: a step that speaks has the terminal for itself."""
        wanted = self.is_watched and bool(self.running) and self.filter_of_options.quiet == set()
        wanted &= not any(step.speaks for step in self.running.values())
        if wanted and not self.live:
            self.live = Live(
                get_renderable=self.display, console=self.console, refresh_per_second=1,
                transient=True, redirect_stdout=False,
            )  # fmt: skip
            self.live.start(refresh=True)
        elif self.live and not wanted:
            self.live.stop()
            self.live = None

    def display(self) -> Table:
        """The running steps, those that tell how far they are first; below them all steps."""
        rows = [(step.told(), step) for step in [*self.running.values()] if not step.is_target]
        rows.sort(key=lambda row: not row[0][0])
        steps = Table.grid(padding=(0, 2))
        for _ in range(5):
            steps.add_column(no_wrap=True)
        shown = rows[: max(1, self.console.height - 4)]
        for told, step in shown:
            steps.add_row(step.name, step.seconds(), *told)
        if len(rows) > len(shown):
            steps.add_row(f"and {len(rows) - len(shown)} more")
        of_all = Table.grid(padding=(0, 2))
        for _ in range(4):
            of_all.add_column(no_wrap=True)
        bar = ProgressBar(max(1, self.total), self.done, width=20)
        done = f"{self.done} of {self.total} steps"
        last = f"last: {self.last}" if self.last else ""
        of_all.add_row(bar, done, progress().clock(time.time() - self.begun), last)
        both = Table.grid()
        both.add_row(steps)
        both.add_row(of_all)
        return both

    def close(self) -> None:
        """Say how the run has ended; Snakemake closes its handlers several times."""
        self.running.clear()
        self.show()
        done, self.is_watched = f"{self.done} of {self.total} steps are done", False
        if self.filter_of_options.quiet:
            pass  # Snakemake does not tell how many are done
        elif self.failed:
            self.say(f"{len(self.failed)} failed, {done}. Mend the cause. {GO_ON}", "red")
        elif self.is_interrupted and self.done < self.total:
            self.say(f"Interrupted: {done}. {GO_ON}", "yellow")
        elif self.done == self.total and not all(step.speaks for step in self.steps.values()):
            folder = os.path.commonpath(self.wanted) if self.wanted else ""
            took = progress().clock(time.time() - self.begun)
            self.say(f"{done}, in {took}{folder and f': {folder}'}", "green")
        self.is_interrupted, self.failed, self.steps = False, set(), {}
        super().close()


def interrupts_in_one_line(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Ctrl-C before the first step ends Snakemake by an exception that it does not catch."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"Interrupted. {GO_ON}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def in_words(wildcards: dict[str, Any]) -> list[str]:
    """The values of wildcards, with the name where a value is a bare number: 2x2-K12, seed 0."""
    return [f"{name} {v}" if str(v).isdecimal() else str(v) for name, v in wildcards.items()]


def in_short(reason: str) -> str:
    """Why Snakemake runs a job, with the number of files where there are several."""
    parts = []
    for part in reason.split("; "):
        what, _, files = part.partition(": ")
        n = len(files.split(", "))
        named = f" ({n})" if n > 1 else f": {files}"
        parts.append(what + named if "files" in what and files else what)
    return ", ".join(parts).lower()


def unknown_target(target: str, known: list[str]) -> str:
    """That a target can't be made, and what can be."""
    near = difflib.get_close_matches(target, known, 1)
    meant = f"; did you mean {near[0]}?" if near else "."
    names = ", ".join(name for name in known if "/" not in name)
    other = " For a file of another experiment name its --configfile." if "/" in target else ""
    return f"{target}: nothing makes it in this experiment{meant} Targets: {names}.{other}"


def last_line(logs: list[str]) -> str:
    """The last line of the first log that there is."""
    for log in map(Path, logs):
        if log.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""
