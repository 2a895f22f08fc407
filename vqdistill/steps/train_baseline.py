"""Train a baseline: a tractable model that is learned from the images, not distilled."""

from vqdistill import data
from vqdistill.circuits.base import Circuit
from vqdistill.models.settings import baseline_settings, build_baseline, load_baseline
from vqdistill.randomness import generator
from vqdistill.steps.job import Job, compute_device, initialised, run
from vqdistill.steps.training import train, write_model


def train_baseline(job: Job) -> None:
    """Train a continuous mixture, an EiNet or another baseline, and keep its best epoch."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    method = job.settings["method"]
    model = initialised(job.seed, method, lambda: build_baseline(images.shape, job.settings))
    model = model.to(device)
    trainer = load_baseline(method).trainer(
        model,
        data.Batches(images.train, images.levels, job.settings["training"]["batch_size"]),
        images.evaluated["validation"],
        generator(job.seed, f"training {method}", device),
        baseline_settings(job.settings),
    )
    fitted, earlier = train(job, trainer, images)
    facts = {"model": method, "size": job.settings["settings"].get("size", 0)}
    if isinstance(model, Circuit):
        facts |= {"parameters": {"circuit": model.n_parameters}}
    else:
        facts |= {"parameters": {"decoder": sum(p.numel() for p in model.parameters())}}
    write_model(job, images, fitted, earlier, device, **facts)


if __name__ == "__main__":
    run(train_baseline, files="images checkpoint weights history record")
