"""Names in paths: checked by the core's rules, described for the API's readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from controlplane.core.validation import Findings
from controlplane.errors import TrimtabError

_NAME_SCHEMA = {"pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
_ID_SCHEMA = {"pattern": "^[A-Za-z0-9._:-]{1,128}$"}


def _checked(check: Callable[[Findings, str, str], None]) -> AfterValidator:
    def validate(value: str) -> str:
        findings = Findings()
        check(findings, "", value)
        try:
            findings.raise_if_any("the name")
        except TrimtabError as refusal:
            found = refusal.violations[0]
            raise PydanticCustomError("name", "{message}", {"message": found.message, "hint": found.hint}) from None
        return value

    return AfterValidator(validate)


_NAME = _checked(Findings.name)
_ID = _checked(Findings.identifier)

Namespace = Annotated[str, _NAME, Path(description="Namespace.", examples=["default"], json_schema_extra=_NAME_SCHEMA)]
Service = Annotated[str, _NAME, Path(description="Service.", examples=["orders"], json_schema_extra=_NAME_SCHEMA)]
InstanceId = Annotated[
    str, _ID, Path(description="Instance id.", examples=["10.0.0.7-8000"], json_schema_extra=_ID_SCHEMA)
]
PolicyName = Annotated[
    str,
    _checked(Findings.policy),
    Path(
        description="Service, or `*` for what holds for every service of the namespace.",
        examples=["orders"],
        json_schema_extra={"pattern": r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|\*)$"},
    ),
]
App = Annotated[str, _NAME, Path(description="Application.", examples=["shop"], json_schema_extra=_NAME_SCHEMA)]
File = Annotated[str, _ID, Path(description="File.", examples=["app.yaml"], json_schema_extra=_ID_SCHEMA)]
