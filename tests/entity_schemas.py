"""Validators for the entity, made from the real Iglu schemas."""

from __future__ import annotations

import json
from pathlib import Path

from jsonschema import Draft4Validator, FormatChecker

_SCHEMAS = Path(__file__).parent / "data" / "iglu"


def _validator(version: str) -> Draft4Validator:
    schema = json.loads((_SCHEMAS / f"client_session-{version}.json").read_text())
    return Draft4Validator(schema, format_checker=FormatChecker())


VALIDATORS = {version: _validator(version) for version in ("1-0-1", "1-0-2")}
"""A validator for each version of the schema; it also checks formats."""
