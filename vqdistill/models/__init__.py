"""The networks: what is distilled, its prior, and the judge of completed images.

Called, vqdistill.models('results/quick') lists the models of a run (provenance/loading.py).
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Models(ModuleType):
    """A package that can be called, since the list of models and their code share the name."""

    def __call__(self, run: Any) -> Any:
        return importlib.import_module("vqdistill.provenance.loading").models(run)


sys.modules[__name__].__class__ = _Models
