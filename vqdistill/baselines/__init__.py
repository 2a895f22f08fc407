"""Tractable models that are learned from the images, one file each.

A file holds `Settings` (those in vqdistill/settings.py, or its own, derived from
vqdistill.settings.Settings), and

    build(image_shape, settings) -> nn.Module
    trainer(model, batches, validation_x, generator, settings) -> training.loop.Trainer

Where its Settings have a `size`, the model is a circuit (circuits.base.Circuit) as it stands. Else
the file also holds what compiles it, to a mixture whose first n components are the model of size n:

    circuit(model, n_components, generator) -> circuits.mixture.Mixture
"""

import importlib
from pathlib import Path
from types import ModuleType

from vqdistill import settings
from vqdistill.errors import InputError

FILES = {"cm": "continuous_mixture"}  # ids that differ from the name of the file
SETTINGS = {
    "cm": settings.ContinuousMixture,
    "einet": settings.EiNet,
    "gmm": settings.GaussianMixture,
}


def module_name(method: str) -> str:
    """The name of a baseline's module, by the id that it has in configs and tables."""
    return f"{__name__}.{FILES.get(method, method)}"


def load_baseline(method: str) -> ModuleType:
    """The module of a baseline ('cm', 'einet', …). Raises InputError where there is none."""
    file = Path(__file__).with_name(f"{FILES.get(method, method)}.py")
    if not (method.isidentifier() and file.exists()) or method.startswith("_"):
        raise InputError(
            f"baselines.{method}: not known; expected {', '.join(SETTINGS)} or the name of a file"
            " in vqdistill/baselines"
        )
    return importlib.import_module(module_name(method))


def settings_of(method: str) -> type[settings.Settings]:
    """The kind of a baseline's settings; torch is imported for those alone that were added.

    Raises InputError where there is no such baseline.
    """
    return SETTINGS[method] if method in SETTINGS else load_baseline(method).Settings


def has_size(method: str) -> bool:
    """Whether a baseline is a circuit as it stands, of the size in its settings."""
    return "size" in settings_of(method).model_fields
