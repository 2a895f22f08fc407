"""Evaluate one trained baseline."""

from vqdistill import data
from vqdistill.baselines import is_circuit
from vqdistill.evaluation.evaluate import evaluate
from vqdistill.evaluation.evaluated_models import EvaluatedModels
from vqdistill.provenance.loading import load_baseline_circuit, load_classifier
from vqdistill.settings import BaselineEvaluation
from vqdistill.steps.job import Job, compute_device, run


def evaluate_baseline(job: Job) -> None:
    """Density and inpainting of a baseline, for every number of components if it is a mixture."""
    device = compute_device(job.threads)
    images = data.load(job["images"], device)
    method, size = job.settings.method, job.settings.size
    sizes, chosen = sorted(job.settings.n_components), job.settings.inpainting
    circuit = load_baseline_circuit(job["weights"], sizes[-1], device)
    if is_circuit(method):
        models = EvaluatedModels(method, circuit, size=size)
    else:
        weights = {"uniform": circuit.log_weights}
        models = EvaluatedModels(method, circuit, sizes=tuple(sizes), log_weights=weights)
    classify = load_classifier(job["classifier"], device).predict
    found = evaluate(
        [models], images, classify, chosen.n_components, chosen.scored_images, job.seed
    )
    job.write_evaluation(found, images, device, model=method, size=size)


if __name__ == "__main__":
    run(
        evaluate_baseline,
        BaselineEvaluation,
        reads="images weights classifier",
        writes="density inpainting log_likelihoods pictures record",
    )
