"""No network: the step that downloads says where it looked and what can be done."""

import os

from tiny_experiment import pick, refusal, without_outputs


def no_network():
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        os.environ[name] = "http://127.0.0.1:9"  # where nothing listens
    os.environ.pop("VQDISTILL_DATA", None)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # torchvision tells of its attempts there


def test_no_network(commands, folder, log):
    command = pick(commands, "prepare_data").with_settings(dataset="mnist", root="nowhere")
    without_outputs(command, folder)
    said = refusal(command, folder, log, no_network)
    assert said.startswith("prepare_data: data.root: mnist can't be had under nowhere (")
    assert "put the four files of MNIST into nowhere/MNIST/raw" in said
    assert "connect to the network" in said
    assert not [path for path in (folder / "nowhere").rglob("*") if path.is_file()]
    assert not (folder / "results/tiny/data/images.npz").exists()
