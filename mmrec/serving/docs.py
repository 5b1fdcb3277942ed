"""The documentation of the server as one page that needs no network: made of its OpenAPI description alone."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from jinja2 import Environment

__all__ = ["add_docs"]

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ api.info.title }} {{ api.info.version }}</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
  pre { background: #f4f4f4; padding: .75rem; overflow-x: auto; }
  h2 { margin-top: 2.5rem; font-family: ui-monospace, monospace; font-size: 1.1rem; }
  table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
  @media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } pre { background: #262626; }
    a { color: #8bf; } }
</style>
<h1>{{ api.info.title }} {{ api.info.version }}</h1>
<p>{{ api.info.description }} The same for programs: <a href="openapi.json">openapi.json</a>.</p>
{% for path, methods in api.paths.items() %}{% for method, route in methods.items() %}
<h2 id="{{ route.operationId }}">{{ method | upper }} {{ path }}</h2>
<p>{{ route.description }}</p>
{% for kind, content in (route.requestBody.content if route.requestBody else {}).items() %}
<p>Takes {{ kind }}, for instance:</p>
<pre>{{ example(content.schema) }}</pre>
<details><summary>schema</summary><pre>{{ resolved(content.schema) }}</pre></details>
{% endfor %}
<table>{% for status, response in route.responses.items() %}
<tr><td>{{ status }}</td><td>{{ response.description }}</td></tr>{% endfor %}</table>
{% endfor %}{% endfor %}
</html>
"""


def add_docs(app: FastAPI) -> None:
    """Serve /docs."""
    page = Environment(autoescape=True).from_string(_PAGE)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        api = app.openapi()

        def resolved(schema: Any) -> Any:
            return json.dumps(_resolve(schema, api), indent=1)

        def example(schema: Any) -> str:
            return json.dumps(_example(_resolve(schema, api)), indent=1)

        return HTMLResponse(page.render(api=api, resolved=resolved, example=example))


def _resolve(schema: Any, api: dict[str, Any], local: dict[str, Any] | None = None) -> Any:
    """The schema with what it refers to in the place of references."""
    if isinstance(schema, list):
        return [_resolve(part, api, local) for part in schema]
    if not isinstance(schema, dict):
        return schema
    local = schema.get("$defs") or local or {}
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _resolve(local.get(name) or api["components"]["schemas"][name], api, local)
    return {key: _resolve(value, api, local) for key, value in schema.items() if key != "$defs"}


def _example(schema: dict[str, Any]) -> Any:
    """A value of the schema: its own default or example, else one made of those of its parts."""
    if "default" in schema:
        return schema["default"]
    if "examples" in schema:
        return schema["examples"][0]
    if "anyOf" in schema:
        return _example(schema["anyOf"][0])
    if schema.get("type") == "object":  # the parts that have to be there, and those with an example of their own
        needed = schema.get("required", [])
        parts = schema.get("properties", {}).items()
        return {name: _example(part) for name, part in parts if name in needed or "examples" in part}
    if schema.get("type") == "array":
        return [_example(schema["items"])]
    return "@file" if schema.get("format") == "binary" else schema.get("type")
