"""The reference of the chart's values and of the fields of our kinds: `python -m docs.kubernetes_reference`.

Here belongs the way from schemas to pages. Never here: what a value or a field means; that is in the schemas. The law:
a page says what its schema says, and a test proves that it was written from the schema of today.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "lockstep"
KINDS = ("queues", "brokers", "deadletterresubmissions")
DIRECTORY = ROOT / "docs" / "kubernetes-reference"

Schema = Mapping[str, Any]
_BOUNDS = (
    ("minimum", "at least {}"), ("maximum", "at most {}"),
    ("minLength", "at least {} characters"), ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"), ("maxItems", "at most {} items"), ("maxProperties", "at most {} entries"),
)  # fmt: skip


def pages() -> dict[Path, str]:
    """Return the text of each page."""
    return {
        DIRECTORY / "values.md": _values_page(),
        DIRECTORY / "custom-resources.md": _kinds_page(),
    }


def write() -> None:
    """Write the pages."""
    DIRECTORY.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


# --- values ------------------------------------------------------------------------------------------


def _values_page() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    rows = [_row(*one) for one in _values(schema, schema["properties"], defaults, "")]
    pod = schema["$defs"]["pod"]["properties"]
    pods = [_row(f"`{key}`", one, defaults["podDefaults"][key]) for key, one in pod.items()]
    return "\n".join([
        "# Values of the chart",
        "",
        "Made by `make reference` from `helm/lockstep/values.schema.json` and `values.yaml`; do not edit. A key that is"
        " not listed here is refused. [kubernetes.md](../kubernetes.md) says how they go together.",
        "",
        *_table(("value", "takes", "default", "meaning"), rows),
        "",
        "## Pods",
        "",
        "The keys of `podDefaults`, and of `pod` in `frontend`, `owner` and `operator`.",
        "",
        *_table(("key", "takes", "default", "meaning"), pods),
        "",
    ])  # fmt: skip


def _values(
    whole: Schema, properties: Schema, defaults: Any, before: str
) -> Iterator[tuple[str, Schema, Any]]:
    for key, schema in properties.items():
        if not before and key == "global":
            continue
        path = f"{before}{key}"
        default = defaults.get(key)
        if "properties" in schema and default != {}:
            yield from _values(whole, schema["properties"], default, f"{path}.")
        else:
            yield f"`{path}`", schema, default


def _row(name: str, schema: Schema, default: Any) -> tuple[str, ...]:
    shown = "" if default in ("", None) else f"`{json.dumps(default, ensure_ascii=False)}`"
    return name, _takes(schema), shown, schema.get("description", "")


# --- kinds -------------------------------------------------------------------------------------------


def _kinds_page() -> str:
    lines = [
        "# Custom resources",
        "",
        "Made by `make reference` from the definitions in `operator/lockstep_operator/crds`; do not edit."
        " [kubernetes.md](../kubernetes.md) shows them at work.",
    ]
    for name in KINDS:
        lines += ["", *_kind(ROOT / "operator" / "lockstep_operator" / "crds" / f"{name}.yaml")]
    return "\n".join([*lines, ""])


def _kind(path: Path) -> list[str]:
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
    names = definition["names"]
    (version,) = definition["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    lines = [
        f"## {names['kind']}",
        "",
        f"`{definition['group']}/{version['name']}`, short name `{', '.join(names['shortNames'])}`."
        f" {schema.get('description', '')}".rstrip(),
    ]
    for part in ("spec", "status"):
        one = schema["properties"].get(part, {})
        rows = list(_fields(one, f"{part}."))
        if rows:
            lines += ["", *_table(("field", "takes", "meaning"), rows)]
        rules = [f"- `{where}`: {message}." for where, message in _rules(one, part)]
        if rules:
            lines += ["", f"What else is asked of `{part}`:", "", *rules]
    return lines


def _fields(schema: Schema, before: str) -> Iterator[tuple[str, ...]]:
    required = schema.get("required", ())
    for key, one in schema.get("properties", {}).items():
        below = one.get("items", one)
        meaning = one.get("description", "")
        if key in required:
            meaning = f"Required. {meaning}".strip()
        if (
            "default" in one
            and one["default"] not in ({}, [])
            and not isinstance(one["default"], dict)
        ):
            meaning = f"{meaning} Default `{json.dumps(one['default'])}`.".strip()
        yield f"`{before}{key}`", _takes(one), " ".join(meaning.split())
        if "properties" in below:
            mark = "[]" if below is not one else ""
            yield from _fields(below, f"{before}{key}{mark}.")


def _rules(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    for one in schema.get("x-kubernetes-validations", ()):
        yield path, one["message"]
    for key, below in schema.get("properties", {}).items():
        yield from _rules(below.get("items", below), f"{path}.{key}")


# --- both --------------------------------------------------------------------------------------------


def _takes(schema: Schema) -> str:
    """Say in words what a schema accepts."""
    if "oneOf" in schema:
        return " or ".join(_takes(one) for one in schema["oneOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = " or ".join(kind)
    if kind == "array":
        kind = f"list of {schema['items'].get('type', 'object')}s"
    bounds = [text.format(schema[key]) for key, text in _BOUNDS if key in schema]
    return ", ".join([kind, *bounds])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines.extend("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return lines


if __name__ == "__main__":
    write()
