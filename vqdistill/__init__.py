"""Tractable density models distilled from VQ-VAEs.

`vqdistill.load` gives a model of a finished run, which answers exact probabilistic questions.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        return importlib.import_module("vqdistill.provenance.loading").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
