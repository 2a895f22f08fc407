"""Train the classifier that tells whether completed images are the right class."""

from vqdistill import data, settings
from vqdistill.models.classifier import Classifier
from vqdistill.randomness import generator
from vqdistill.steps.job import Job, compute_device, initialised, run
from vqdistill.training.gradient import GradientTrainer, in_batches
from vqdistill.training.loop import fit

VALIDATION_BATCH = 500


def train_classifier(job: Job) -> None:
    """Train a CNN on the training split, once for all models; its test accuracy is recorded."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    model = initialised(
        job.seed, "classifier", lambda: Classifier(images.shape, data.N_CLASSES, job.settings)
    ).to(device)
    training, labels = job.settings.training, images.labels
    trainer = GradientTrainer(
        model,
        data.Batches(images.train, images.levels, training.batch_size, images.train_labels),
        in_batches(VALIDATION_BATCH, images.evaluated["validation"], labels["validation"]),
        generator(job.seed, "training classifier", device),
        job.settings.learning_rate,
        job.settings.weight_decay,
    )
    fitted = fit(trainer, training, job["checkpoint"], job.key(images.checksum))
    model.load_state_dict(fitted.weights)
    right = model.eval().predict(images.evaluated["test"]) == labels["test"]
    facts = {"model": "classifier", "test_accuracy": right.double().mean().item()}
    facts |= {"parameters": {"classifier": sum(p.numel() for p in model.parameters())}}
    job.write_model(fitted, images, device, **facts)


if __name__ == "__main__":
    run(
        train_classifier,
        settings.Classifier,
        reads="images",
        writes="weights history record checkpoint",
    )
