"""An experiment's configuration: checked against the schema, and resolved into each job's settings.

Settings are plain values, complete in themselves: what a job gets is all that its result depends
on besides its input files, its seed and the code.
"""

import ast
import difflib
import math
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError, best_match

from vqdistill.datasets import DATASETS
from vqdistill.distillation import EXACT_METHOD, MAX_EXACT_LATENTS, method_names
from vqdistill.errors import InputError
from vqdistill.files import read_yaml
from vqdistill.models.architectures import check_channels, encoder_layers
from vqdistill.models.settings import (
    baseline_module,
    build_baseline,
    load_baseline,
    parse_grid,
)

# As in the standard, but 1.0 is no integer: paths and tables are made from these numbers.
Validator = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: _is_integer(value)
    ),
)


def read_schema(path: str | Path) -> dict[str, Any]:
    """The JSON schema of configurations."""
    return read_yaml(path)


def checked(config: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the schema's defaults filled in.

    Raises InputError, one line that names the key, what was found and what is allowed.
    """
    _check_plain(config, "config")
    config = with_defaults(config, schema, schema)
    error = best_match(Validator(schema).iter_errors(config))
    if error is not None:
        raise InputError(_one_line(error))
    _check_teachers(config)
    _check_names(config["baselines"])
    kept = {name: entry for name, entry in config["baselines"].items() if entry is not None}
    config = config | {"baselines": kept}
    for name, baseline in config["baselines"].items():
        _check_baseline(name, baseline)
    return config


def typed(value: Any) -> Any:
    """A value of the command line with its numbers: Snakemake leaves those in lists as text."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _check_plain(value: Any, where: str) -> None:
    """Refuse what YAML can hold and no setting may be, at any depth."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"{where}: the key {key!r} is no text; write it in quotes")
            _check_plain(item, f"config: {key}" if where == "config" else f"{where}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_plain(item, f"{where}.{number}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: found {value}, expected a finite number")
    elif isinstance(value, str) and not value.isprintable():
        raise InputError(f"{where}: found {value!r}, expected text without line breaks")


def with_defaults(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """`value` with the defaults of all properties that it lacks, at every depth."""
    if "$ref" in schema:
        reference = root["$defs"][schema["$ref"].rpartition("/")[2]]
        schema = reference | {k: v for k, v in schema.items() if k != "$ref"}
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [with_defaults(item, schema["items"], root) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    filled = {k: p["default"] for k, p in properties.items() if "default" in p} | value
    patterns = schema.get("patternProperties", {}).values()
    fallback = next(iter(patterns), {})
    return {k: with_defaults(v, properties.get(k, fallback), root) for k, v in filled.items()}


def _one_line(error: ValidationError) -> str:
    key = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = [name for name in error.instance if name not in known]
        name = next((n for n in unknown if repr(n) in error.message), unknown[0])
        hint = _nearest(name, known) if known else "it does not have the form of one"
        return f"config: {key + '.' if key else ''}{name}: unknown key; {hint}"
    about = error.schema.get("description", "")
    about = f" ({about})" if about else ""
    return f"config: {key or 'top level'}: {error.message.splitlines()[0]}{about}"


def _check_names(baselines: dict[str, Any]) -> None:
    for name in baselines:
        if settings_types(name) is None:
            raise InputError(
                f"config: baselines.{name}: not known; expected cm, einet or a module of"
                " vqdistill/baselines"
            )


def _check_baseline(name: str, baseline: dict[str, Any]) -> None:
    where, known = f"config: baselines.{name}", settings_types(name)
    for key, value in baseline["settings"].items():
        if key == "size":
            raise InputError(f"{where}.settings.size: list it in `sizes` instead")
        if key not in known:
            raise InputError(f"{where}.settings.{key}: unknown key; {_nearest(key, list(known))}")
        if not SETTING_TYPES.get(known[key], lambda _: True)(value):
            raise InputError(f"{where}.settings.{key}: found {value!r}, expected {known[key]}")
    if ("size" in known) != ("sizes" in baseline):
        expected = "one size or more" if "size" in known else "none, this model has no size"
        raise InputError(f"{where}.sizes: expected {expected}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


SETTING_TYPES = {  # by their annotation in a baseline's Settings
    "int": _is_integer,
    "float": lambda value: _is_integer(value) or isinstance(value, float),
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "tuple[int, ...]": lambda value: isinstance(value, list) and all(map(_is_integer, value)),
}


def settings_types(method: str) -> dict[str, str] | None:
    """The settings that a baseline's module declares, with their types, without importing it.

    None where there is no such baseline.
    """
    path = Path(__file__).parent / "baselines" / f"{baseline_module(method).rpartition('.')[2]}.py"
    if not path.exists():
        return None
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == "Settings":
            lines = [line for line in node.body if isinstance(line, ast.AnnAssign)]
            return {line.target.id: ast.unparse(line.annotation) for line in lines}
    return None


def check_buildable(config: dict[str, Any]) -> None:
    """InputError unless all baselines can be built with their settings; takes no memory for them.

    Imports torch, and so is no part of `checked`.
    """
    import torch

    shape = DATASETS[config["data"]["dataset"]].shape
    for model, (method, size) in baselines(config).items():
        module = load_baseline(method)
        if bool(size) == module.PREFIXES_ARE_MODELS:
            raise InputError(
                f"config: baselines.{method}: {module.__name__}.PREFIXES_ARE_MODELS is {module.PREFIXES_ARE_MODELS}; expected"
                f" {not size}, since its Settings have {'a' if size else 'no'} size"
            )
        try:
            with torch.device("meta"):
                build_baseline(shape, baseline_settings(config, model))
        except InputError as error:
            raise InputError(f"config: baselines.{method}.settings: {error}") from None


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"


def _check_teachers(config: dict[str, Any]) -> None:
    seen = set()
    for number, teacher in enumerate(config["teachers"]):
        grid, where = teacher["grid"], f"config: teachers.{number}"
        for method in teacher["methods"]:
            if method not in (EXACT_METHOD, *method_names()):
                hint = _nearest(method, [EXACT_METHOD, *method_names()])
                raise InputError(f"{where}.methods: {method!r} is not known; {hint}")
        if grid not in config["vqvae"]["channels"]:
            raise InputError(
                f"{where}.grid: no channels for {grid}; add them under vqvae.channels, which has"
                f" {', '.join(config['vqvae']['channels'])}"
            )
        positions = math.prod(int(side) for side in grid.split("x"))
        for size in teacher["codebook_sizes"]:
            if (grid, size) in seen:
                raise InputError(f"{where}: {grid} with K = {size} stands twice; merge the methods")
            seen.add((grid, size))
            latents, largest = size**positions, max(config["n_components"])
            if teacher["methods"] != [EXACT_METHOD] and largest > latents:
                raise InputError(
                    f"{where}: {largest} components of n_components, but K = {size} on {grid} has"
                    f" only {latents} latents; lower n_components or raise the codebook size"
                )
            if EXACT_METHOD in teacher["methods"] and latents > MAX_EXACT_LATENTS:
                raise InputError(
                    f"{where}: exm with K = {size} on {grid} has {size}^{positions} latents, of"
                    f" which at most {MAX_EXACT_LATENTS} can be enumerated; lower the codebook size"
                )
        _check_grid(config, grid, where)


def _check_grid(config: dict[str, Any], grid: str, where: str) -> None:
    shape, sides = DATASETS[config["data"]["dataset"]].shape, parse_grid(grid)
    try:
        layers, _ = encoder_layers(shape, sides)
    except InputError as error:
        raise InputError(f"{where}.{error}") from None
    try:
        check_channels(tuple(config["vqvae"]["channels"][grid]), len(layers), sides)
    except InputError as error:
        raise InputError(f"config: vqvae.{error}") from None


def teachers(config: dict[str, Any]) -> dict[str, list[str]]:
    """The methods by source, such as '2x2-K16': one source is one VQ-VAE with its prior."""
    return {
        f"{teacher['grid']}-K{size}": teacher["methods"]
        for teacher in config["teachers"]
        for size in teacher["codebook_sizes"]
    }


def baselines(config: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """(method, size) by model, such as 'cm' and 'einet-8'."""
    models = {}
    for method, entry in config["baselines"].items():
        for size in entry.get("sizes", [0]):
            models[f"{method}-{size}" if size else method] = (method, size)
    return models


def methods(config: dict[str, Any]) -> list[str]:
    """All methods of an experiment, in the order in which they are named."""
    named = [method for entry in config["teachers"] for method in entry["methods"]]
    return list(dict.fromkeys([*named, *config["baselines"]]))


def sources_of(config: dict[str, Any], method: str) -> list[str]:
    """The teachers or models that a method is evaluated on."""
    distilled = [source for source, names in teachers(config).items() if method in names]
    return distilled + [model for model, (name, _) in baselines(config).items() if name == method]


def _split(source: str) -> tuple[str, int]:
    grid, _, size = source.partition("-K")
    return grid, int(size)


def _training(config: dict[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    return config["training"] | section["training"]


def data_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of prepare_data."""
    return config["data"]


def vqvae_settings(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings of train_vqvae for one source."""
    section = config["vqvae"]
    grid, size = _split(source)
    return section | {
        "grid": grid,
        "codebook_size": size,
        "channels": section["channels"][grid],
        "training": _training(config, section),
    }


def prior_settings(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings of train_prior for one source."""
    section = config["prior"]
    grid, size = _split(source)
    return section | {
        "grid": grid,
        "codebook_size": size,
        "width": section["width"] or config["vqvae"]["channels"][grid][-1],
        "training": _training(config, section),
    }


def baseline_settings(config: dict[str, Any], model: str) -> dict[str, Any]:
    """Settings of train_baseline for one model."""
    method, size = baselines(config)[model]
    section = config["baselines"][method]
    own = section["settings"] | ({"size": size} if size else {})
    return {"method": method, "settings": own, "training": _training(config, section)}


def classifier_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of train_classifier."""
    section = config["classifier"]
    return section | {"training": _training(config, section)}


def selection_settings(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings of distil for one source."""
    grid, size = _split(source)
    return {"grid": grid, "codebook_size": size, "n_components": config["n_components"]}


def teacher_evaluation_settings(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings of evaluate_teacher for one source."""
    return selection_settings(config, source) | {"inpainting": config["inpainting"]}


def baseline_evaluation_settings(config: dict[str, Any], model: str) -> dict[str, Any]:
    """Settings of evaluate_baseline for one model."""
    method, size = baselines(config)[model]
    return {
        "method": method,
        "size": size,
        "n_components": config["n_components"],
        "inpainting": config["inpainting"],
    }


def settings_of_steps(config: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The settings of every step that leaves a record, by step and source or model."""
    settings = {("train_classifier", "classifier"): classifier_settings(config)}
    for source in teachers(config):
        settings[("train_vqvae", f"vqvae-{source}")] = vqvae_settings(config, source)
        settings[("train_prior", f"prior-{source}")] = prior_settings(config, source)
        settings[("distil", source)] = selection_settings(config, source)
        settings[("evaluate_teacher", f"vqvae-{source}")] = teacher_evaluation_settings(
            config, source
        )
    for model in baselines(config):
        settings[("train_baseline", model)] = baseline_settings(config, model)
        settings[("evaluate_baseline", model)] = baseline_evaluation_settings(config, model)
    return settings


def expected_models(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The keys of every model that density.csv must hold."""
    models = []
    for source, names in teachers(config).items():
        grid, size = _split(source)
        keys = {"grid": grid, "codebook_size": size, "size": 0}
        positions = math.prod(int(side) for side in grid.split("x"))
        for method in names:
            sizes = [size**positions] if method == EXACT_METHOD else config["n_components"]
            models += [
                {"method": method, **keys, "n_components": n, "weights": weights}
                for n in sizes
                for weights in ("uniform", "prior")
            ]
    for method, size in baselines(config).values():
        keys = {"method": method, "grid": "-", "codebook_size": 0, "size": size}
        if size:
            models.append({**keys, "n_components": 0, "weights": "learned"})
        else:
            sizes = config["n_components"]
            models += [{**keys, "n_components": n, "weights": "uniform"} for n in sizes]
    return [model | {"seed": seed} for model in models for seed in config["seeds"]]
