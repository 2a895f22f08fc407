"""Models from plain settings, and baselines by name."""

import importlib
from dataclasses import fields
from types import ModuleType
from typing import Any

from vqdistill.errors import InputError

BASELINES = {"cm": "continuous_mixture"}  # ids that differ from the name of the module


def parse_grid(text: str) -> tuple[int, int]:
    """(H, W) of a grid that is written '2x2'."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise InputError(f"grid: {text!r} is not a grid; write height x width, such as 4x4")
    return int(height), int(width)


def settings_from(kind: type, values: dict[str, Any], name: str) -> Any:
    """A settings dataclass from plain values; lists become tuples, a grid its two sides.

    Raises InputError for a key that the dataclass lacks.
    """
    known = [field.name for field in fields(kind)]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise InputError(f"{name}.{unknown[0]}: not a setting; expected one of {', '.join(known)}")
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    if "grid" in values:
        values["grid"] = parse_grid(values["grid"])
    return kind(**values)


def model_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The part of a step's settings that describes the model, not its training."""
    of_training = ("learning_rate", "weight_decay", "training")
    return {key: value for key, value in settings.items() if key not in of_training}


def baseline_module(method: str) -> str:
    """The name of the module of a baseline, by the id it has in configs and tables."""
    return f"vqdistill.baselines.{BASELINES.get(method, method)}"


def load_baseline(method: str) -> ModuleType:
    """The module of a baseline ('cm', 'einet', …); InputError where there is none."""
    name = baseline_module(method)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise InputError(f"baselines.{method}: not known; expected a module {name}") from None


def baseline_settings(settings: dict[str, Any]) -> Any:
    """The settings dataclass of a baseline, from the settings of a step."""
    method = settings["method"]
    return settings_from(
        load_baseline(method).Settings, settings["settings"], f"baselines.{method}.settings"
    )


def build_baseline(image_shape: tuple[int, int], settings: dict[str, Any]) -> Any:
    """An untrained baseline with the settings of a step."""
    module = load_baseline(settings["method"])
    return module.build(tuple(image_shape), baseline_settings(settings))
