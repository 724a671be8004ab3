"""Configuration formats: bytes to values."""

from __future__ import annotations

import json
import tomllib
from typing import Any

FORMATS = ("text", "json", "yaml", "toml", "properties")


def parse(format_: str, content: bytes) -> Any:
    """Return what a file says: str for text, dict[str, str] for properties, else what the format holds.

    Raises ValueError, saying what and where, also for YAML without PyYAML and for an unknown format.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    match format_:
        case "text":
            return text
        case "json":
            return json.loads(text)
        case "toml":
            return tomllib.loads(text)
        case "properties":
            return _properties(text)
        case "yaml":
            return _yaml(text)
    raise ValueError(f"format {format_!r} is none of {', '.join(FORMATS)}")


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ValueError("YAML needs PyYAML, which is not installed here") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _properties(text: str) -> dict[str, str]:
    """Return the pairs of lines ``key = value``, ``key: value``; ``#`` and ``!`` begin a comment, a last ``\\`` goes on."""
    pairs: dict[str, str] = {}
    lines = iter(text.splitlines())
    for number, first in enumerate(lines, 1):
        line = first.strip()
        if not line or line[0] in "#!":
            continue
        while line.endswith("\\") and not line.endswith("\\\\"):
            line = line[:-1] + next(lines, "").strip()
        split = min((at for at in (line.find("="), line.find(":")) if at >= 0), default=-1)
        if split <= 0:
            raise ValueError(f"line {number}: no key and value in {first.strip()!r}")
        pairs[line[:split].strip()] = line[split + 1 :].strip()
    return pairs
