"""What jobs cost, from the files that a run leaves."""

import pytest

from vqdistill.files import write_json
from vqdistill.steps.measure import run_of

HEADER = "s\th:m:s\tmax_rss\tcpu_time\n"


def benchmark(results, name: str, seconds: float):
    path = results / "benchmarks" / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:00:00\t900.5\t3.0\n")
    return run_of(path, results / "benchmarks")


@pytest.mark.parametrize(
    ("rule", "folder"),
    [
        ("train_vqvae", "models/vqvae-2x2-K4"),
        ("train_prior", "models/prior-2x2-K4"),
        ("distil", "latents/2x2-K4"),
        ("evaluate_teacher", "metrics/2x2-K4"),
    ],
)
def test_device_and_epochs_are_those_of_the_record(tmp_path, rule, folder):
    record = {"device": "NVIDIA H200", "epochs_run": 7, "wall_seconds": 30.0}
    write_json(tmp_path / folder / "seed-3/record.json", record)
    assert benchmark(tmp_path, f"{rule}/2x2-K4/seed-3", 12.0) == {
        "rule": rule,
        "name": "2x2-K4",
        "device": "NVIDIA H200",
        "seconds": 30.0,  # a benchmark tells the last of several attempts alone
        "memory_mb": 900.5,
        "epochs": 7,
    }


def test_jobs_without_a_record_ran_on_the_cpu(tmp_path):
    found = benchmark(tmp_path, "prepare_data", 4.0)
    assert found["name"] == "-"
    assert (found["device"], found["seconds"], found["epochs"]) == ("cpu", 4.0, 0)
