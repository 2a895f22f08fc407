"""Evaluate one trained baseline."""

from vqdistill import data
from vqdistill.evaluation.evaluated_models import EvaluatedModels
from vqdistill.models.settings import load_baseline
from vqdistill.provenance.loading import load_baseline_circuit, load_classifier
from vqdistill.steps.evaluation import evaluate_and_write, write_record
from vqdistill.steps.job import Job, compute_device, run


def evaluate_baseline(job: Job) -> None:
    """Density and inpainting of a baseline, for every number of components if it is a mixture."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    method, size = job.settings["method"], job.settings["size"]
    sizes = sorted(job.settings["n_components"])
    circuit = load_baseline_circuit(job["weights"], sizes[-1], device)
    models = EvaluatedModels(method, circuit, size=size)
    if load_baseline(method).PREFIXES_ARE_MODELS:
        weights = {"uniform": circuit.log_weights}
        models = EvaluatedModels(method, circuit, sizes=tuple(sizes), log_weights=weights)
    classifier = load_classifier(job["classifier"], device)
    evaluate_and_write(job, [models], images, classifier.predict)
    write_record(job, images, device, model=method, size=size)


if __name__ == "__main__":
    run(
        evaluate_baseline,
        files="images weights classifier density inpainting pictures record",
    )
