"""The rules in docs/architecture.md, checked against the imports and classes of both packages."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
MAX_LAYERS = 12
PACKAGES = ("client_session", "client_session_persistence")


def find_modules() -> dict[str, ast.Module]:
    """Map the dotted name of each module in both packages to its syntax tree."""
    return {
        ".".join(path.relative_to(ROOT / root).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for root in ("fsm", "persistence")
        for path in (ROOT / root).rglob("*.py")
    }


MODULES = find_modules()


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and its descendants, skipping `if TYPE_CHECKING` blocks."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from runtime_nodes(child)


def imported_names(module: str, *, include_type_checking: bool) -> set[str]:
    """Return the dotted names of everything that a module imports, whether at the top level or inside a function."""
    names: set[str] = set()
    for node in ast.walk(MODULES[module]) if include_type_checking else runtime_nodes(MODULES[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= full & MODULES.keys() or {str(node.module)} | full
    return names


def own_imports(module: str, *, include_type_checking: bool) -> set[str]:
    """Return the modules of both packages that a module imports."""
    return imported_names(module, include_type_checking=include_type_checking) & MODULES.keys() - {module}


def find_importers(*packages: str) -> set[str]:
    """Return the modules that import any of these packages."""
    return {
        module
        for module in MODULES
        if {name.partition(".")[0] for name in imported_names(module, include_type_checking=True)} & set(packages)
    }


def layers(*, include_type_checking: bool) -> dict[str, int]:
    """Map each module to its layer.

    The layer is 1 if the module does not import any of our other modules; otherwise, it is one more than the highest
    layer among the modules that it imports. An import cycle fails the test.
    """
    found: dict[str, int] = {}

    def visit(module: str, path: tuple[str, ...]) -> int:
        assert module not in path, f"import cycle: {' → '.join((*path[path.index(module) :], module))}"
        if module not in found:
            below = [
                visit(other, (*path, module))
                for other in sorted(own_imports(module, include_type_checking=include_type_checking))
            ]
            found[module] = 1 + max(below, default=0)
        return found[module]

    for module in MODULES:
        visit(module, ())
    return found


@pytest.mark.parametrize("include_type_checking", [False, True], ids=["at run time", "including type-checking imports"])
def test_no_import_cycles(*, include_type_checking: bool) -> None:
    """Modules do not import each other in a cycle, even if type-checking imports are included."""
    assert layers(include_type_checking=include_type_checking).keys() == MODULES.keys()


def test_import_chains_are_short() -> None:
    """The longest chain of imports, from the command line down to the graph, has at most 12 modules."""
    found = layers(include_type_checking=False)
    highest = max(found.values())
    assert highest <= MAX_LAYERS, {module for module, layer in found.items() if layer == highest}
    assert found["client_session.graph"] == 1
    assert found["client_session.__main__"] == highest


def test_packages_import_in_one_direction() -> None:
    """`client_session` imports `client_session_persistence`, never the reverse."""
    assert all(
        module.startswith("client_session.") or module == "client_session" for module in find_importers(PACKAGES[0])
    )
    assert find_importers(PACKAGES[1]) > {"client_session.session"}


def test_each_library_is_imported_only_by_its_modules() -> None:
    """Only one module imports transitions, four print to a terminal, and adapters import trackers and databases."""
    assert find_importers("transitions") == {"client_session.machine"}
    commands = {"client_session.sessionize.command", "client_session.verify.command"}
    printing = {"client_session.cli", "client_session.terminal", *commands}
    assert find_importers("click", "rich") == printing
    assert find_importers("snowplow_tracker") == {"client_session.trackers.snowplow"}
    assert find_importers("opentelemetry") == {"client_session.trackers.opentelemetry"}
    assert find_importers("polars", "polars_hash") == {
        f"client_session.sessionize.{name}"
        for name in ("command", "log_files", "polars", "polars_log", "polars_places", "summary")
    } | {"client_session.verify.polars_sessionizer"}
    assert find_importers("psycopg") == {"client_session_persistence.postgres_states"}
    assert not find_importers("redis", "valkey"), "RedisStates uses whichever client it is given"
    hypothesis = find_importers("hypothesis")
    assert hypothesis
    assert all(module.startswith(("client_session.verify.", "client_session.testing.")) for module in hypothesis)


@pytest.mark.parametrize("module", ["graph", "machine", "lifecycle", "focus_time"])
def test_core_does_not_perform_io(module: str) -> None:
    """The lifecycle core does not use clocks, locks, files or stores."""
    forbidden = {"time", "datetime", "threading", "os", "io", "pathlib", "queue", "random", "uuid", PACKAGES[1]}
    used = imported_names(f"client_session.{module}", include_type_checking=True)
    assert not {name.partition(".")[0] for name in used} & forbidden


def test_classes_inherit_only_from_contracts() -> None:
    """Of our own classes, only contracts (abstract classes, protocols and exceptions) have subclasses."""
    classes = {
        node.name: [ast.unparse(base).partition("[")[0] for base in node.bases]
        for tree in MODULES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    inherited = {base for bases in classes.values() for base in bases if base in classes}
    contracts = {name for name in inherited if {"ABC", "Protocol"} & set(classes[name]) or name.endswith("Error")}
    assert inherited - contracts <= {"SessionModel"}, "the one exception is SessionModel, subclassed in verify.run"


def test_every_import_is_written_out() -> None:
    """No module is imported by a computed name, or reads data files or metadata, so freezers see all that is needed."""
    found = {
        (module, name)
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if (name := getattr(node, "attr", None) or getattr(node, "id", None))
        in {"import_module", "__import__", "exec", "eval", "find_spec", "iter_modules", "__file__", "__path__"}
    }
    assert not found
    assert not find_importers("importlib", "pkgutil")
