"""Train a baseline: a tractable model that is learned from the images, not distilled."""

from vqdistill import data
from vqdistill.baselines import load_baseline, settings_of
from vqdistill.circuits.base import Circuit
from vqdistill.randomness import generator
from vqdistill.settings import BaselineTraining, parsed
from vqdistill.steps.job import Job, compute_device, initialised, run
from vqdistill.training.loop import fit


def train_baseline(job: Job) -> None:
    """Train a continuous mixture, an EiNet or another baseline, and keep its best epoch."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    method, training = job.settings.method, job.settings.training
    baseline = load_baseline(method)
    settings = parsed(settings_of(method), job.settings.settings, "--settings", "settings")
    model = initialised(job.seed, method, lambda: baseline.build(images.shape, settings))
    model = model.to(device)
    trainer = baseline.trainer(
        model,
        data.Batches(images.train, images.levels, training.batch_size),
        images.evaluated["validation"],
        generator(job.seed, f"training {method}", device),
        settings,
    )
    fitted = fit(trainer, training, job["checkpoint"], job.key(images.checksum))
    if isinstance(model, Circuit):
        parameters = {"circuit": model.n_parameters}
    else:
        parameters = {"decoder": sum(p.numel() for p in model.parameters())}
    size = getattr(settings, "size", 0)
    job.write_model(fitted, images, device, model=method, size=size, parameters=parameters)


if __name__ == "__main__":
    run(
        train_baseline,
        BaselineTraining,
        reads="images",
        writes="weights history record checkpoint",
    )
