"""The public API: docs/api.txt lists it, and every type in its signatures can be imported."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")
pytest.importorskip("polars", reason="needs polars")
pytest.importorskip("psycopg", reason="needs psycopg, and libpq", exc_type=ImportError)
pytest.importorskip("snowplow_tracker", reason="needs snowplow-tracker")

import public_api  # after the skips, since it imports the trackers

LISTING = public_api.listing()
PACKAGES = ("client_session", "client_session.sessionize", "client_session.visitors", "client_session_persistence")


def our_names_in(use: public_api.Use) -> set[str]:
    """Return the names in an annotation that are defined in one of our packages."""
    module = import_module(use.source_module)
    imported = public_api.imports(module)
    return {
        node.id
        for node in ast.walk(ast.parse(use.annotation, mode="eval"))
        if isinstance(node, ast.Name)
        and (
            node.id in public_api.definitions(module) or imported.get(node.id, "").split(".")[0] in public_api.PACKAGES
        )
    }


def test_listing_is_current() -> None:
    """docs/api.txt matches the code, so every change to the public API shows up in that file."""
    stored = public_api.TARGET.read_text(encoding="utf-8")
    assert stored == public_api.text(), "docs/api.txt is out of date: run `make api` and check the diff"


def test_every_type_in_a_public_signature_can_be_imported() -> None:
    """Each type is exported by the module that uses it or by a package, for use in annotations."""
    missing = {
        f"{use.public_module}.{use.public_name} uses {name}"
        for use in LISTING.uses
        for name in our_names_in(use)
        if not any(name in public_api.public_names(module) for module in (*PACKAGES, use.public_module))
    }
    assert not missing


def test_every_public_name_exists_and_has_a_docstring() -> None:
    """The modules in the listing, and the classes and functions that they export, are documented."""
    for module_name in public_api.MODULES:
        module = import_module(module_name)
        assert inspect.getdoc(module), module_name
        for name in public_api.public_names(module_name):
            value = getattr(module, name)
            assert not inspect.isclass(value) or inspect.getdoc(value), f"{module_name}.{name}"
            assert not inspect.isfunction(value) or inspect.getdoc(value), f"{module_name}.{name}"


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("int | None", "int | None"),
        (int | None, "int | None"),
        (list[str], "list[str]"),
        (None, "None"),
    ],
)
def test_annotation_text_is_the_same_on_every_python_version(annotation: object, expected: str) -> None:
    """An annotation that is not a string is listed as it would be written in source code."""
    assert public_api.type_text(annotation) == expected
