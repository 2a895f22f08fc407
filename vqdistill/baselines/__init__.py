"""Tractable models that are learned from the images, one file each.

A file holds `Settings` (those in vqdistill/settings.py, or its own, derived from
vqdistill.settings.Settings), and

    build(image_shape, settings) -> nn.Module
    trainer(model, batches, validation_x, generator, settings) -> training.loop.Trainer

The model is a circuit (circuits.base.Circuit) as it stands, and where its Settings have a `size`,
the configuration lists `sizes`. Unless the file also holds what compiles the model, to a mixture
whose first n components are the model of size n:

    circuit(model, n_components, generator) -> circuits.mixture.Mixture
"""

import importlib
import pkgutil
from types import ModuleType

from vqdistill import settings
from vqdistill.errors import InputError, failures_told

FILES = {"cm": "continuous_mixture"}  # ids that differ from the name of the file
SETTINGS = {
    "cm": settings.ContinuousMixture,
    "einet": settings.EiNet,
    "gmm": settings.GaussianMixture,
    "quad_tree": settings.QuadTree,
    "quad_tree_levels": settings.QuadTree,
}


def module_name(method: str) -> str:
    """The name of a baseline's module, by the id that it has in configs and tables."""
    return f"{__name__}.{FILES.get(method, method)}"


def baseline_names() -> list[str]:
    """The baselines that there are, by the ids that they have in configs and tables."""
    ids = {file: name for name, file in FILES.items()}
    return sorted(ids.get(module.name, module.name) for module in pkgutil.iter_modules(__path__))


def load_baseline(method: str) -> ModuleType:
    """The module of a baseline ('cm', 'einet', …). Raises InputError where there is none."""
    if method not in baseline_names():
        raise InputError(
            f"baselines.{method}: not known; {settings.suggestion(method, baseline_names())} or add"
            f" vqdistill/baselines/{method}.py"
        )
    with failures_told(f"baselines.{method}"):
        return importlib.import_module(module_name(method))


def settings_of(method: str) -> type[settings.Settings]:
    """The kind of a baseline's settings; torch is imported for those alone that were added.

    Raises InputError where there is no such baseline, or none in its file.
    """
    kind = SETTINGS.get(method) or getattr(load_baseline(method), "Settings", None)
    if kind is None:
        raise InputError(
            f"baselines.{method}: found no Settings in its file, expected a class derived from"
            " vqdistill.settings.Settings; see docs/extending.md"
        )
    return kind


def has_size(method: str) -> bool:
    """Whether the configuration lists sizes of a baseline, since its settings have a `size`."""
    return "size" in settings_of(method).model_fields


def is_circuit(method: str) -> bool:
    """Whether a baseline is a circuit as it stands, and not compiled to mixtures of any N."""
    return method != "cm" and (method in SETTINGS or not hasattr(load_baseline(method), "circuit"))
