"""Write what is generated from the settings: their page of the documentation, and the schema by
which editors check config.yaml and presets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from vqdistill.files import replacing
from vqdistill.settings import LARGEST_COUNT, Experiment, Settings

ROOT = Path(__file__).parents[2]
PAGE, SCHEMA = "docs/settings.md", "workflow/schemas/config.schema.json"
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
NAMES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}
INTRODUCTION = f"""# Settings

`config.yaml` holds what makes up the paper's experiment, and a preset changes some of it. Every
other key has the paper's value as its default, and may stand in a preset too. An unknown key, a
value of another type and one that is out of bounds are refused before anything is trained. The
`training` of a model holds only what differs from the experiment's `training`. No integer is above
{LARGEST_COUNT}, where no other bound is named. A file that was added to `vqdistill/baselines` is
named under `baselines` too, with `sizes`, `settings`, `training`.

`python -m vqdistill.steps.describe_settings` makes this page, and the schema for editors in
`{SCHEMA}`, from `vqdistill/settings.py`.

| key | value | default | meaning |
|---|---|---|---|
"""


MANY = {tuple: "[].", dict: ".<method>."}  # settings of which a key holds several


def texts() -> dict[str, str]:
    """What each generated file holds, by its path in the repository."""
    rows = "".join(f"| {' | '.join(row)} |\n" for row in _rows(Experiment, ""))
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= _for_editors(Experiment.model_json_schema())
    return {
        PAGE: INTRODUCTION + rows,
        SCHEMA: json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
    }


def _for_editors(schema: Any) -> Any:
    """A schema that presets fit too, which lack what config.yaml holds, without what only repeats
    the names and the defaults in it."""
    if isinstance(schema, list):
        return [_for_editors(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    left_out = {"required", "title"} | ({"default"} if "$ref" in schema else set())
    return {key: _for_editors(value) for key, value in schema.items() if key not in left_out}


def _rows(kind: type[Settings], above: str) -> Iterator[tuple[str, str, str, str]]:
    """Key, value, default and meaning of all settings of a kind, and of those within them."""
    schema = kind.model_json_schema()
    for name, field in kind.model_fields.items():
        key, meaning = f"{above}{name}", " ".join((field.description or "").split())
        inner = _inner(field.annotation)
        if inner and not (above and name == "training"):
            yield from _rows(inner, key + MANY.get(get_origin(field.annotation), "."))
            continue
        default = "" if field.is_required() else f"`{_default(field.default)}`"
        yield f"`{key}`", _value(schema["properties"][name]), default, meaning


def _inner(annotation: Any) -> type[Settings] | None:
    """The settings that a key holds, if it does, one or several or none of them."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation if annotation.model_fields else None
    return next(filter(None, map(_inner, get_args(annotation))), None)


def _default(value: Any) -> str:
    if isinstance(value, Settings):
        value = value.model_dump(mode="json", exclude_unset=True)
    return json.dumps(value, ensure_ascii=False)


def _value(schema: dict[str, Any]) -> str:
    """What may stand at a key, in words."""
    if "anyOf" in schema:
        return " or ".join(_value(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list: {_value(schema['items'])}"
    if schema.get("type") == "null":
        return "null"
    if "patternProperties" in schema:
        return f"by grid: {_value(next(iter(schema['patternProperties'].values())))}"
    bounds = [f"{sign} {schema[key]}" for key, sign in BOUNDS.items() if key in schema]
    bounds = [bound for bound in bounds if bound != f"≤ {LARGEST_COUNT}"]
    return " ".join([NAMES.get(schema.get("type", ""), "mapping"), *bounds])


if __name__ == "__main__":
    for path, text in texts().items():
        with replacing(ROOT / path) as temporary:
            temporary.write_text(text, encoding="utf-8")
