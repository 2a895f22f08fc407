"""Train the classifier that tells whether completed images are the right class."""

from vqdistill import data
from vqdistill.models.classifier import build_classifier
from vqdistill.randomness import generator
from vqdistill.steps.job import Job, compute_device, initialised, run
from vqdistill.steps.training import train, write_model
from vqdistill.training.gradient import GradientTrainer, in_batches

VALIDATION_BATCH = 500


def train_classifier(job: Job) -> None:
    """Train a CNN on the training split, once for all models; its test accuracy is recorded."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    settings = job.settings
    model = initialised(job.seed, "classifier", lambda: build_classifier(images.shape, settings))
    model = model.to(device)
    trainer = GradientTrainer(
        model,
        data.Batches(
            images.train, images.levels, settings["training"]["batch_size"], images.train_labels
        ),
        in_batches(VALIDATION_BATCH, images.evaluated["validation"], images.labels["validation"]),
        generator(job.seed, "training classifier", device),
        settings["learning_rate"],
        settings["weight_decay"],
    )
    fitted, earlier = train(job, trainer, images)
    model.load_state_dict(fitted.weights)
    guesses = model.eval().predict(images.evaluated["test"])
    accuracy = (guesses == images.labels["test"]).double().mean().item()
    facts = {"model": "classifier", "test_accuracy": accuracy}
    facts |= {"parameters": {"classifier": sum(p.numel() for p in model.parameters())}}
    write_model(job, images, fitted, earlier, device, **facts)


if __name__ == "__main__":
    run(train_classifier, files="images checkpoint weights history record")
