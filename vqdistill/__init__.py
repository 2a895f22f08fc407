"""Tractable density models distilled from VQ-VAEs.

`vqdistill.load` gives a model of a finished run, or of a file, which answers exact probabilistic
questions; `vqdistill.models` lists those of a run.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["load", "models"]


def __getattr__(name: str) -> Any:
    if name == "load":
        return importlib.import_module("vqdistill.provenance.loading").load
    if name == "models":
        return importlib.import_module("vqdistill.models")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
