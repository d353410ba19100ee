"""The public API as text, with every name and signature, so that any change shows up in a diff.

``python tests/public_api.py`` writes ``docs/api.txt``. The text does not depend on the Python version or the platform.
"""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import types
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs

TARGET = Path(__file__).parents[1] / "docs" / "api.txt"
WIDTH = 120

MODULES = (
    "client_session",
    "client_session.sessionize",
    "client_session.sessionize.polars",
    "client_session.sessionize.spark",
    "client_session.testing",
    "client_session.testing.trace",
    "client_session.ticking.asyncio",
    "client_session.ticking.scheduler",
    "client_session.trackers.logging",
    "client_session.trackers.opentelemetry",
    "client_session.trackers.snowplow",
    "client_session.visitors",
    "client_session_persistence",
)
PACKAGES = frozenset({"client_session", "client_session_persistence"})
SPECIAL_METHODS = frozenset({"__call__", "__contains__", "__enter__", "__exit__", "__iter__", "__len__"})


@attrs.frozen
class Use:
    """An annotation in a public signature, with the public module and name it belongs to, and its source module."""

    public_module: str
    public_name: str
    annotation: str
    source_module: str


@attrs.define
class Listing:
    """The lines of the listing and the annotations that they contain."""

    lines: list[str] = attrs.field(factory=list)
    uses: list[Use] = attrs.field(factory=list)


def listing() -> Listing:
    """Return the listing of all public modules."""
    result = Listing(["# The public API. `make api` regenerates this file."])
    for name in MODULES:
        result.lines += ["", f"module {name}"]
        for public_name in public_names(name):
            _Describer(result, name, public_name).describe()
    return result


def public_names(module_name: str) -> list[str]:
    """Return a module's public names: `__all__` if defined; otherwise, all names without a leading underscore."""
    module = import_module(module_name)
    names = getattr(module, "__all__", None) or [name for name in definitions(module) if not name.startswith("_")]
    return sorted({*names, *({"__version__"} & vars(module).keys())})


def definitions(module: types.ModuleType) -> dict[str, str]:
    """Return each name that a module defines at the top level, with its annotation or an empty string."""
    found: dict[str, str] = {}
    for node in _tree(module).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                found[node.name] = ""
            case ast.Assign(targets=[ast.Name() as target]):
                found[target.id] = ""
            case ast.AnnAssign(target=ast.Name() as target):
                found[target.id] = ast.unparse(node.annotation)
            case _:
                pass
    return found


def imports(module: types.ModuleType) -> dict[str, str]:
    """Return each name that a module imports, even if only for type checkers, with the module it comes from."""
    return {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@functools.cache
def _tree(module: types.ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def type_text(annotation: object) -> str:
    """Return an annotation as a string. Most are strings already, except those that attrs or `Protocol` created."""
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, typing.ForwardRef):
        return annotation.__forward_arg__
    if annotation is None or annotation is types.NoneType:
        return "None"
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Union or origin is types.UnionType:
        return " | ".join(map(type_text, arguments))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(type_text, arguments))}]"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def value_text(value: object) -> str:
    """Return a default value or a constant as a string."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if inspect.isroutine(value):
        return value.__name__
    return repr(value)


class _Describer:
    """Adds one public name to a listing."""

    def __init__(self, target: Listing, module_name: str, name: str) -> None:
        self._target = target
        self._module_name = module_name
        self._name = name
        self._value: Any = getattr(import_module(module_name), name)
        self._definer = getattr(self._value, "__module__", None) or module_name

    def describe(self) -> None:
        homes = [
            name for name in MODULES if f"{self._definer}.".startswith(f"{name}.") and self._name in public_names(name)
        ]
        home = max(homes, key=len, default=self._module_name)
        if inspect.isclass(self._value) and home != self._module_name:
            self._add_line(1, f"{self._name} = {home}.{self._name}")
        elif inspect.isclass(self._value):
            self._describe_class(self._value)
        elif inspect.isfunction(self._value):
            if home != self._module_name:
                self._add_line(1, f"{self._name} = {home}.{self._name}")
            else:
                self._add_call(1, f"def {self._name}", self._value, self._definer)
        else:
            self._describe_variable()

    def _describe_variable(self) -> None:
        module = import_module(self._module_name)
        while self._name not in definitions(module):
            module = import_module(imports(module)[self._name])
        if annotation := definitions(module)[self._name]:
            self._add_line(1, f"{self._name}: {self._record_use(annotation, module.__name__)}")
        elif self._name == "__version__":
            self._add_line(1, self._name)
        elif isinstance(self._value, str | int):
            self._add_line(1, f"{self._name} = {self._value!r}")
        else:
            self._add_line(1, f"type {self._name} = {type_text(self._value)}")

    def _describe_class(self, cls: type[Any]) -> None:
        kind = "protocol" if getattr(cls, "_is_protocol", False) else "enum" if issubclass(cls, enum.Enum) else "class"
        kind = "typed dict" if typing.is_typeddict(cls) else kind
        if kind == "class" and _has_constructor(cls):
            self._add_call(1, f"class {self._name}", cls, cls.__module__)
        else:
            self._add_line(1, f"{kind} {self._name}")
        for base in cls.__bases__:
            if base.__module__.split(".")[0] not in PACKAGES | {"enum", "typing"} and base not in {dict, object}:
                self._add_line(2, f"base {base.__name__}")
        if issubclass(cls, enum.Enum):
            for member in cls:
                self._add_line(2, f"{member.name} = {member.value!r}")
        else:
            for name in sorted(members := _members(cls)):
                self._describe_member(name, members[name], cls)

    def _describe_member(self, name: str, definer: type[Any], cls: type[Any]) -> None:
        module = definer.__module__
        match value := vars(definer).get(name):
            case property(fget=getter, fset=setter):
                text = self._record_use(_annotations(getter)["return"], module)
                allowed = [
                    self._record_use(text, module) for key, text in _annotations(setter).items() if key != "return"
                ]
                self._add_line(2, f"{name}: {text}" + (f", settable to {allowed[0]}" if allowed else ", read-only"))
            case types.FunctionType():
                self._add_call(2, f"def {name}", value, module)
            case classmethod():
                self._add_call(2, f"classmethod {name}", getattr(cls, name), module)
            case staticmethod() if inspect.isfunction(value.__func__):
                self._add_call(2, f"staticmethod {name}", value.__func__, module)
            case staticmethod():
                self._add_line(2, f"staticmethod {name}(...)")
            case _:
                annotation = self._record_use(_attributes(definer)[name], module)
                self._add_line(2, f"{name}: {annotation}" if annotation else name)

    def _add_call(self, depth: int, head: str, call: Any, module: str) -> None:  # noqa: ANN401  # any callable
        signature = inspect.signature(call)
        parameters = [parameter for name, parameter in signature.parameters.items() if name != "self"]
        texts: list[str] = []
        for index, parameter in enumerate(parameters):
            if parameter.kind is parameter.KEYWORD_ONLY and not any(
                before.kind in {parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL} for before in parameters[:index]
            ):
                texts.append("*")
            texts.append(self._parameter_text(parameter, module))
            if parameter.kind is parameter.POSITIONAL_ONLY and not any(
                after.kind is parameter.POSITIONAL_ONLY for after in parameters[index + 1 :]
            ):
                texts.append("/")
        returned = signature.return_annotation
        result = "" if inspect.isclass(call) else f" -> {self._record_use(type_text(returned), module)}"
        line = f"{head}({', '.join(texts)}){result}"
        if len(line) + 4 * depth <= WIDTH:
            self._add_line(depth, line)
        else:
            self._add_line(depth, f"{head}(")
            for text in texts:
                self._add_line(depth + 1, f"{text},")
            self._add_line(depth, f"){result}")

    def _parameter_text(self, parameter: inspect.Parameter, module: str) -> str:
        stars = {parameter.VAR_POSITIONAL.name: "*", parameter.VAR_KEYWORD.name: "**"}
        name = stars.get(parameter.kind.name, "") + parameter.name
        if parameter.annotation is not parameter.empty:
            name = f"{name}: {self._record_use(type_text(parameter.annotation), module)}"
        return name if parameter.default is parameter.empty else f"{name} = {value_text(parameter.default)}"

    def _record_use(self, annotation: str, module: str) -> str:
        if annotation:
            self._target.uses.append(Use(self._module_name, self._name, annotation, module))
        return annotation

    def _add_line(self, depth: int, line: str) -> None:
        self._target.lines.append("    " * depth + line)


def _has_constructor(cls: type[Any]) -> bool:
    """Return whether the class has a constructor of its own that is public: not all of its fields are private."""
    if cls.__init__ is Exception.__init__:
        return False
    fields = attrs.fields(cls) if attrs.has(cls) else ()
    return not fields or not all(field.name.startswith("_") for field in fields)


def _members(cls: type[Any]) -> dict[str, type[Any]]:
    """Return the name of each public member of a class, with the class in our packages that defines it."""
    found: dict[str, type[Any]] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.split(".")[0] in PACKAGES:
            names = {name for name in vars(base) if not name.startswith("_") or name in SPECIAL_METHODS}
            found |= dict.fromkeys(names | _attributes(base).keys(), base)
    return found


def _attributes(cls: type[Any]) -> dict[str, str]:
    """Return the annotation of each public attribute defined by a class's fields or ``__init__``."""
    if attrs.has(cls):
        return {field.name: type_text(field.type) for field in attrs.fields(cls) if not field.name.startswith("_")}
    if typing.is_typeddict(cls):
        return _annotations(cls)
    found: dict[str, str] = {}
    if "__init__" in vars(cls) and inspect.isfunction(cls.__init__):
        parameters = _annotations(cls.__init__)
        node = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls.__init__)))
        for statement in ast.walk(node):
            match statement:
                case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=annotation):
                    found[name] = ast.unparse(annotation)
                case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=value):
                    found[name] = _type_of(value, parameters)
                case _:
                    pass
    return {name: annotation for name, annotation in found.items() if not name.startswith("_")}


def _type_of(value: ast.expr, parameters: dict[str, str]) -> str:
    """Return the type of a parameter, or the name of the class that is called; otherwise, return an empty string."""
    match value:
        case ast.Name(id=name):
            return parameters.get(name, "")
        case ast.Call(func=ast.Name(id=name)) if name[0].isupper():
            return name
        case _:
            return ""


def _annotations(function: Any) -> dict[str, str]:  # noqa: ANN401  # any function, or None
    annotations: dict[str, object] = getattr(function, "__annotations__", {})
    return {name: type_text(annotation) for name, annotation in annotations.items()}


def text() -> str:
    """Return the text of ``docs/api.txt``."""
    return "\n".join(listing().lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8", newline="\n")
