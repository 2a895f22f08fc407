"""Selection methods: which latents of a VQ-VAE become the components of a mixture.

One file is one method. It holds PREFIXES_ARE_MODELS (whether the first n of a larger selection are
a selection of n) and

    select(prior, n_components, generator, training_codes) -> selection.Selection

A file added here is a method that `load_method` finds. ExM selects nothing: it takes all latents.
Nor do deep.py and code_start.py: they learn circuits from samples.

A prior is what models/pixelcnn.py is: `codebook_size`, `grid`, `n_classes`, `device`, the count
`evaluations`, and p(z|c) position by position by `begin`, `next_log_probs` and `extend`.
"""

import importlib
import pkgutil
from types import ModuleType

from vqdistill.errors import InputError, failures_told

EXACT_METHOD = "exm"
METHODS = ("dmbs", "dmrs", "frequent", "random")  # that are there from the start
MAX_EXACT_LATENTS = 2**27  # log p(z) of so many takes a gigabyte
NO_METHODS = {"selection", "enumeration", "mixtures", "deep", "code_start", EXACT_METHOD}


def method_names() -> list[str]:
    """The selection methods that there are."""
    return sorted({module.name for module in pkgutil.iter_modules(__path__)} - NO_METHODS)


def load_method(name: str) -> ModuleType:
    """The module of the selection method `name`. Raises InputError where there is none."""
    if name not in method_names():
        raise InputError(
            f"selection method: found '{name}', expected one of {', '.join(method_names())}; "
            f"choose one of these or add vqdistill/distillation/<name>.py"
        )
    with failures_told(f"{name}.py"):
        return importlib.import_module(f"{__name__}.{name}")
