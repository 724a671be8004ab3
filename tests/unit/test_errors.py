"""The error catalogue has one home, and its page tells all of it."""

from __future__ import annotations

from pathlib import Path

import grpc

from controlplane.errors import Code

CATALOGUE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()


def test_every_code_is_documented_with_its_statuses():
    for code in Code:
        row = f"| `{code.code}` | {code.grpc_status} | {code.http_status} | {'yes' if code.retryable else 'no'} |"
        assert row in CATALOGUE


def test_every_code_is_unique_and_names_a_grpc_status():
    assert len({code.code for code in Code}) == len(Code)
    assert all(hasattr(grpc.StatusCode, code.grpc_status) for code in Code)
