"""JSON Schema of the configuration, for editors.

Always true: made from the models that read the file, so the two cannot differ; what the schema
refuses, the loader refuses; the loader knows more (units, names, files).
Does not belong here: descriptions (they stand beside the settings).
"""

from __future__ import annotations

from typing import Any

from gateway.config.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12, as plain data."""
    made = Settings.model_json_schema(mode="validation")
    definitions = made.pop("$defs", {})
    for definition in (made, *definitions.values()):
        _loosen(definition)
    route = definitions["RouteSettings"]
    for bare, full in (("Endpoint", "EndpointSettings"), ("Stream", "StreamSettings")):
        definitions[bare] = {"anyOf": [{"type": "string", "description": "its URL"}, definitions.pop(full)]}
    endpoints = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Endpoint"}}
    endpoints["description"] = "URLs, or mappings with a url"
    route["properties"]["endpoints"] = endpoints
    route["required"].remove("endpoints")  # the catalogue knows an exchange's
    route["anyOf"] = [{"required": [name]} for name in ("endpoints", "venue", "venue_file")]
    definitions["Route"] = {"anyOf": [endpoints, route]}
    del definitions["RouteSettings"]
    _refer(route["properties"]["streams"], "StreamSettings", "Stream")
    made["properties"]["routes"]["additionalProperties"] = {"$ref": "#/$defs/Route"}
    return {
        "$schema": DIALECT,
        "title": "Seawall configuration",
        "anyOf": [{"$ref": "#/$defs/File"}, endpoints],
        "$defs": {"File": made, **definitions},
    }


def _loosen(definition: dict[str, Any]) -> None:
    """A setting without a value is not set; what pydantic calls a title says nothing new."""
    definition.pop("title", None)
    required = set(definition.get("required", ()))
    for name, field in definition.get("properties", {}).items():
        field.pop("title", None)
        if name not in required and {"type": "null"} not in field.get("anyOf", []):
            said = {key: field.pop(key) for key in ("default", "description") if key in field}
            inner = dict(field)
            field.clear()
            field.update({"anyOf": [inner, {"type": "null"}], **said})


def _refer(schema: Any, was: str, becomes: str) -> None:
    """Have what refers to one definition refer to another."""
    if isinstance(schema, dict):
        if schema.get("$ref") == f"#/$defs/{was}":
            schema["$ref"] = f"#/$defs/{becomes}"
        for inner in schema.values():
            _refer(inner, was, becomes)
    elif isinstance(schema, list):
        for inner in schema:
            _refer(inner, was, becomes)
