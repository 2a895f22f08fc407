"""What the training steps share: fit a model, write its weights, history and record."""

from vqdistill.data import Images
from vqdistill.files import write_json, write_rows, write_tensors
from vqdistill.steps.job import Job, device_name
from vqdistill.training.loop import Fitted, Stopping, Trainer, fit


def stopping(settings: dict) -> Stopping:
    """The stopping rule in a step's `training` settings."""
    training = settings["training"]
    return Stopping(training["max_epochs"], training["patience"], training["min_improvement"])


def train(job: Job, trainer: Trainer, images: Images, *inputs: str) -> tuple[Fitted, float]:
    """Fit, going on from the job's checkpoint if there is one for the same settings and inputs.

    Returns the training and the seconds that epochs before an interruption took.
    """
    before = job.stopwatch.cost()["wall_seconds"]
    fitted = fit(
        trainer, stopping(job.settings), job["checkpoint"], job.key(images.checksum, *inputs)
    )
    spent = sum(row["seconds"] for row in fitted.history)
    here = job.stopwatch.cost()["wall_seconds"] - before
    return fitted, max(0.0, spent - here)


def write_model(
    job: Job, images: Images, fitted: Fitted, earlier_seconds: float, device, **facts
) -> None:
    """Write weights, history and record of a trained model, then drop its checkpoint."""
    metadata = {"settings": job.settings, "image_shape": list(images.shape), "seed": job.seed}
    write_tensors(job["weights"], fitted.weights, metadata)
    history = [row | {"best": int(row["epoch"] == fitted.best_epoch)} for row in fitted.history]
    write_rows(job["history"], history)
    record = job.record(
        device_name(device),
        earlier_seconds,
        dataset=images.dataset,
        data_checksum=images.checksum,
        epochs_run=len(fitted.history),
        best_epoch=fitted.best_epoch,
        best_validation=fitted.best_validation,
        stopped_by=fitted.stopped_by,
        **facts,
    )
    write_json(job["record"], record)
    job["checkpoint"].unlink(missing_ok=True)
