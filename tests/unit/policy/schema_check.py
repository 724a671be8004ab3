"""As much of JSON Schema (draft 2020-12) as the policies' schema uses. An unknown keyword is an error of the test."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
_SAYS_NOTHING = {"$schema", "$defs", "title", "description", "default"}


def valid(value: Any, schema: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Whether ``value`` is what ``schema``, a part of ``whole``, describes."""
    return all(_holds(key, told, value, schema, whole) for key, told in schema.items() if key not in _SAYS_NOTHING)


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _is(type_: str, value: Any) -> bool:
    if type_ in ("number", "integer"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and (type_ == "number" or float(value).is_integer())
    return isinstance(value, _TYPES[type_])


def _holds(key: str, told: Any, value: Any, schema: dict[str, Any], whole: dict[str, Any]) -> bool:
    text = value if isinstance(value, str) else None
    number = value if _is("number", value) else None
    size = len(value) if isinstance(value, (dict, list)) else None
    members = value if isinstance(value, dict) else {}
    match key:
        case "$ref":
            return valid(value, whole["$defs"][told.removeprefix("#/$defs/")], whole)
        case "type":
            return any(_is(one, value) for one in ([told] if isinstance(told, str) else told))
        case "const":
            return _same(value, told)
        case "enum":
            return any(_same(value, one) for one in told)
        case "anyOf":
            return any(valid(value, one, whole) for one in told)
        case "required":
            return not isinstance(value, dict) or all(name in value for name in told)
        case "properties":
            return all(valid(members[name], one, whole) for name, one in told.items() if name in members)
        case "additionalProperties":
            others = [one for name, one in members.items() if name not in schema.get("properties", {})]
            return not others if told is False else all(valid(one, told, whole) for one in others)
        case "items":
            return not isinstance(value, list) or all(valid(one, told, whole) for one in value)
        case "minItems" | "minProperties":
            return size is None or size >= told
        case "maxItems" | "maxProperties":
            return size is None or size <= told
        case "minLength":
            return text is None or len(text) >= told
        case "maxLength":
            return text is None or len(text) <= told
        case "pattern":
            return text is None or re.search(told, text) is not None
        case "minimum":
            return number is None or number >= told
        case "maximum":
            return number is None or number <= told
    raise AssertionError(f"{key} is no keyword that policies use")
