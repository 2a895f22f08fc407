"""The workflow on a real SLURM: equal tables, whatever happens to its jobs on the way."""

import copy
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import ROOT

QUICK = "workflow/presets/quick.yaml"
QUICK_SECONDS = 20 * 60  # 41 jobs on two cores, each of which starts Snakemake and its steps
LONG_TRAINING = 150  # seconds: too long for a limit of a minute, which SLURM may exceed by another
PROFILE = ["--workflow-profile", "workflow/profiles/slurm"]
# A cluster of one node on one disk answers fast, and jobs of seconds belong together.
FAST = ["--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "5"]
CHAINS = ["--groups"]
OF_TEACHERS = ("train_vqvae", "train_prior", "train_student", "distil", "evaluate_teacher")
CHAINS += [f"{rule}=chain" for rule in OF_TEACHERS]
CHAINS += [f"{rule}=baseline" for rule in ("train_baseline", "evaluate_baseline")]

pytestmark = pytest.mark.slurm


def ended(process: subprocess.Popen, folder: Path, seconds: float) -> str:
    """All that a Snakemake that ends well within `seconds` has to say, by its own log."""
    try:
        status = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        status = f"not done after {seconds} s"
    assert status == 0, f"{status}\n{(folder / 'results/snakemake.log').read_text()[-10_000:]}"
    return max((folder / ".snakemake/log").glob("*.log")).read_text()


def jobs() -> pd.DataFrame:
    """All jobs that SLURM knows: id, state, comment (which names rule and wildcards)."""
    command = ["squeue", "--states=all", "--noheader", "--format=%i|%T|%k"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.strip().split("|") for line in said.splitlines()]
    return pd.DataFrame(rows, columns=["id", "state", "comment"]).set_index("id")


def details(job: str) -> dict[str, str]:
    """What SLURM knows of one job."""
    command = ["scontrol", "show", "job", job, "--oneliner"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(field.partition("=")[::2] for field in said.split())


def submitted(said: str) -> list[str]:
    """The SLURM ids of the jobs that a Snakemake submitted."""
    return re.findall(r"submitted with SLURM jobid (\d+)", said)


def without_times(path: Path) -> pd.DataFrame:
    """A table as text, without what clock and memory say, and the commit, which a copy has not."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    dropped = ["wall_seconds", "peak_memory_mb", "seconds", "commit"]
    return table.drop(columns=dropped, errors="ignore")


def assert_same_tables(ours: Path, theirs: Path) -> None:
    """Equal byte for byte, but for the two tables that tell times: these but for the times."""
    names = sorted(path.name for path in theirs.glob("*.csv"))
    assert names
    assert sorted(path.name for path in ours.glob("*.csv")) == names
    for name in names:
        if name in ("timings.csv", "history.csv"):
            pd.testing.assert_frame_equal(
                without_times(ours / name), without_times(theirs / name), obj=name
            )
        else:
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def poll(condition: Callable[[], object], what: str, seconds: float = 180):
    """The first true value of a condition; fails where there is none in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.2)
    pytest.fail(f"not seen within {seconds} s: {what}")


def report_overhead(folder: Path, ids: list[str], seconds: float) -> None:
    """Print what submission cost: time that jobs held a core and no step of theirs was running."""
    times = [details(job)["RunTime"].split(":") for job in ids]
    held = sum(int(h) * 3600 + int(m) * 60 + int(s) for h, m, s in times)
    benchmarks = set((folder / "results/quick/benchmarks").rglob("*.tsv"))
    ran = [path for path in benchmarks if path.stem != "prepare_data"]
    busy = sum(pd.read_csv(path, sep="\t")["s"].iloc[-1] for path in ran)
    lost = (held - busy) / len(ids)
    print(f"quick preset: {seconds:.0f} s; {len(ids)} jobs held a core for {held} s,", end=" ")
    print(f"their steps ran {busy:.0f} s: {lost:.1f} s a job are not theirs")


def test_quick_preset_has_the_tables_of_a_local_run(slurm, copy_repository, start):
    process = start(ROOT, "--cores", "2", "--configfile", QUICK)
    ended(process, ROOT, 30 * 60)

    folder, begun = copy_repository(), time.monotonic()
    process = start(folder, *PROFILE, *FAST, *CHAINS, "--configfile", QUICK)
    said = ended(process, folder, QUICK_SECONDS)
    seconds, ids = time.monotonic() - begun, submitted(said)
    report_overhead(folder, ids, seconds)

    assert_same_tables(*(path / "results/quick/tables" for path in (folder, ROOT)))
    assert len(ids) == len(set(ids)) == 1 + 10 + 30  # classifier, teachers, baselines
    assert set(jobs().loc[ids, "state"]) == {"COMPLETED"}
    local = set(re.findall(r"\nlocalrule (\w+):", said))
    assert local == {"prepare_data", "tabulate", "draw_charts", "draw_pictures", "all"}


@pytest.fixture(scope="module")
def small(copy_repository) -> Iterator[Path]:
    """A configuration of one seed, with trainings long enough to be met in their middle."""
    quick = yaml.safe_load((ROOT / QUICK).read_text())
    changes = {"experiment": "small", "seeds": [0]}
    changes["teachers"] = [
        {"grid": "2x2", "codebook_sizes": [12], "methods": ["exm", "dmrs", "dmbs"]}
    ]
    baselines = copy.deepcopy(quick["baselines"])
    baselines["einet"] |= {"sizes": [2], "training": {"max_epochs": 100, "patience": 100}}
    folder = copy_repository()
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(quick | changes | {"baselines": baselines}))
    return path


def test_tables_are_the_same_after_signals_and_a_drained_node(slurm, copy_repository, start, small):
    undisturbed = small.parent
    ended(start(undisturbed, "--cores", "2", "--configfile", small), undisturbed, 600)

    folder = copy_repository()
    process = start(folder, *PROFILE, *FAST, "--configfile", small)
    checkpoints = folder / "results/small/checkpoints"
    before = set(jobs().index)

    def in_training(name: str) -> str:
        """The id of the running job that trains a model and has finished an epoch."""
        known = jobs().drop(before, errors="ignore")
        mine = known[known["comment"].str.contains(name) & (known["state"] == "RUNNING")]
        saved = (checkpoints / name / "seed-0.safetensors").exists()
        return mine.index[0] if saved and len(mine) else ""

    signals, struck = {"cm": "TERM", "einet-2": "KILL"}, {}

    def both_struck() -> bool:
        for name in signals.keys() - struck.keys():
            if job := in_training(name):
                subprocess.run(["scancel", f"--signal={signals[name]}", job], check=True)
                struck[name] = job
        return len(struck) == len(signals)

    poll(both_struck, "both trainings")

    node = subprocess.run(["sinfo", "--noheader", "--format=%n"], capture_output=True, text=True)
    update = ["scontrol", "update", f"nodename={node.stdout.strip()}"]
    subprocess.run([*update, "state=drain", "reason=test"], check=True)
    poll(lambda: "RUNNING" not in set(jobs()["state"]), "a drained node")
    poll(lambda: "PENDING" in set(jobs()["state"]), "a job that waits for the node")
    subprocess.run([*update, "state=resume"], check=True)

    said = ended(process, folder, 900)
    assert_same_tables(*(path / "results/small/tables" for path in (folder, undisturbed)))
    states = jobs().loc[submitted(said), "state"]
    assert states[[*struck.values()]].isin(["FAILED", "CANCELLED"]).all()
    assert (states.drop([*struck.values()]) == "COMPLETED").all()
    assert said.count("Trying to restart job") == 2
    for name in struck:
        log = (folder / f"results/small/logs/train_baseline/{name}/seed-0.log").read_text()
        assert "going on from" in log, name


def test_too_little_memory_and_too_little_time_are_retried_with_more(
    slurm, copy_repository, start, small
):
    models = small.parent / "results/small/models"
    model = models.relative_to(small.parent) / "einet-2/seed-0/record.json"
    ended(start(small.parent, model, "--cores", "2", "--configfile", small), small.parent, 600)
    epoch = pd.read_csv(models / "einet-2/seed-0/history.csv")["seconds"].median()

    folder = copy_repository()
    config = yaml.safe_load(small.read_text())
    epochs = round(LONG_TRAINING / epoch)
    config["baselines"]["einet"]["training"] = {"max_epochs": epochs, "patience": epochs}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    resources = [
        "train_classifier:mem_mb=attempt * 600",
        "train_classifier:gpu=1",
        "train_baseline:runtime=attempt",
        "train_baseline:gpu=0",
    ]
    targets = [
        f"results/small/models/{name}/seed-0/record.json" for name in ("classifier", "einet-2")
    ]
    arguments = [*PROFILE, *FAST, "--configfile", path, "--set-resources", *resources]
    said = ended(start(folder, *targets, *arguments), folder, 900)

    found = pd.DataFrame([details(job) for job in submitted(said)]).set_index("Comment")
    classifier, einet = (
        found.loc[[name]]
        for name in ("rule_train_classifier", "rule_train_baseline_wildcards_einet-2_0")
    )
    for attempts in (classifier, einet):
        assert len(attempts) > 1
        assert attempts["JobState"].iloc[-1] == "COMPLETED"
    assert (classifier["JobState"].iloc[:-1] != "COMPLETED").all()
    assert list(classifier["MinMemoryNode"]) == [
        f"{600 * n}M" for n in range(1, len(classifier) + 1)
    ]
    assert classifier["TresPerJob"].str.contains("gres:gpu:1").all()
    assert (einet["JobState"].iloc[:-1] == "TIMEOUT").all()
    assert list(einet["TimeLimit"]) == [f"00:0{n}:00" for n in range(1, len(einet) + 1)]
    assert "TresPerJob" not in found or einet["TresPerJob"].isna().all()
