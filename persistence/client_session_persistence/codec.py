"""The format of save files: the XML that .NET's ``DataContractSerializer`` writes for a ``Dictionary<string, object>``.

Reading is strict, and safe for untrusted files. The parser uses expat without XML's dangerous features: no DTD, so no
entities; no processing instructions; only UTF-8; a fixed grammar with limited nesting of ignored elements; short
namespaces; at most `MAX_BYTES`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn
from xml.parsers import expat

from client_session_persistence.snapshot import CorruptSaveFileError, Snapshot, iso_time

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 64 * 1024
_MAX_REASON = 200
_MAX_IGNORED_DEPTH = 64
_BAD_PAIR = "each pair must be one Key followed by one Value"

# Expat prefixes each name with its namespace, so a 64 KiB file with one long namespace and many short names would
# expand to 200 MiB. Save files of normal size are too short for this to matter, so they are not searched.
_SHORT_BYTES = 4 * 1024
_LONG_NAMESPACE = re.compile(rb"\sxmlns[^\s=]*\s*=\s*(?:\"[^\"]{97}|'[^']{97})")

ARRAYS = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
SCHEMA = "http://www.w3.org/2001/XMLSchema"

_ROOT_NAME, _PAIR_NAME = "ArrayOfKeyValueOfstringanyType", "KeyValueOfstringanyType"
_ROOT = f"{ARRAYS} {_ROOT_NAME}"
_PAIR = f"{ARRAYS} {_PAIR_NAME}"
_KEY = f"{ARRAYS} Key"
_VALUE = f"{ARRAYS} Value"
_GRAMMAR: dict[tuple[str, ...], set[str]] = {(): {_ROOT}, (_ROOT,): {_PAIR}, (_ROOT, _PAIR): {_KEY, _VALUE}}

FIELDS = {
    "userId": ("user_id", "string"),
    "sessionId": ("session_id", "string"),
    "previousSessionId": ("previous_session_id", "string"),
    "sessionIndex": ("session_index", "int"),
    "storageMechanism": ("storage_mechanism", "string"),
    "firstEventId": ("first_event_id", "string"),
    "firstEventTimestamp": ("first_event_timestamp", "dateTime"),
    "eventIndex": ("event_index", "int"),
    "lastActivity": ("last_activity", "dateTime"),
    "sessionStart": ("session_start", "dateTime"),
    "background": ("background", "boolean"),
}
"""Maps each key in the file to its field in `Snapshot` and the XML Schema type of its value."""

_INT = re.compile(r"0|-?[1-9][0-9]{0,9}")
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_READABLE_USER_ID = re.compile(
    rb"userId</[^<>]*>\s*<[^<>]*>([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{16})</"
)


def dumps(snapshot: Snapshot) -> bytes:
    """Serialize a snapshot as the .NET tracker does: one line of UTF-8 without an XML declaration.

    If only the user is set, the file has only the user id. Otherwise, it has all keys, with ``i:nil="true"`` for null.

    Raises:
        TypeError: the argument is not a `Snapshot`.

    """
    if not isinstance(snapshot, Snapshot):
        msg = f"snapshot must be a Snapshot, not {snapshot!r:.100}"
        raise TypeError(msg)
    if snapshot.session_id is None and snapshot == Snapshot(user_id=snapshot.user_id):
        return (_USER_ONLY % _value("userId", snapshot.user_id)).encode("ascii")
    values = (_value(key, getattr(snapshot, field)) for key, (field, _) in FIELDS.items())
    return (_ALL_KEYS % tuple(values)).encode("ascii")


def _document(values: dict[str, str]) -> str:
    pairs = "".join(f"<{_PAIR_NAME}><Key>{key}</Key>{value}</{_PAIR_NAME}>" for key, value in values.items())
    return f'<{_ROOT_NAME} xmlns="{ARRAYS}" xmlns:i="{INSTANCE}">{pairs}</{_ROOT_NAME}>'


def _value(key: str, value: str | int | datetime | None) -> str:
    # No value needs escaping: the snapshot's validators reject all characters that are special in XML.
    if value is None:
        return _NULL
    if isinstance(value, bool):
        text: str | int = "true" if value else "false"
    else:
        text = iso_time(value) if isinstance(value, datetime) else value
    return f'<Value i:type="a:{FIELDS[key][1]}" xmlns:a="{SCHEMA}">{text}</Value>'


_NULL = '<Value i:nil="true"/>'
_ALL_KEYS = _document(dict.fromkeys(FIELDS, "%s"))
_USER_ONLY = _document({"userId": "%s"})


def _our_pattern() -> re.Pattern[str]:
    pattern = re.escape(_document({key: f"@{key}@" for key in FIELDS}))
    for key in FIELDS:
        value = re.escape(_value(key, "@")).replace("@", "([-.:_0-9A-Za-z]*)")
        null = "" if key in ("userId", "sessionIndex") else f"|{re.escape(_NULL)}"
        pattern = pattern.replace(f"@{key}@", f"(?:{value}{null})")
    return re.compile(pattern)


_OURS = _our_pattern()
"""Matches files that `dumps` writes for a session, ten times as fast as expat could parse them."""


def loads(data: bytes) -> Snapshot:
    """Parse the bytes of a save file that this package or the .NET tracker wrote. Unknown keys are ignored.

    Raises:
        CorruptSaveFileError: the bytes are not a valid save file; ``reason`` says why.
        TypeError: the argument is not ``bytes``.

    """
    if not isinstance(data, bytes):
        msg = f"data must be bytes, not {data!r:.100}"
        raise TypeError(msg)
    if len(data) > MAX_BYTES:
        _corrupt(f"{len(data)} bytes is more than the maximum of {MAX_BYTES}")
    if not data.strip():
        _corrupt("it is empty (no element found)")
    fields: dict[str, Any]
    if ours := _OURS.fullmatch(data.decode("latin-1")):
        fields = {
            field: text if text is None or kind == "string" else _READERS[kind](key, text)
            for (key, (field, kind)), text in zip(FIELDS.items(), ours.groups(), strict=True)
        }
    else:
        fields = {FIELDS[key][0]: value for key, value in _read(data).items()}
    try:
        return Snapshot(**fields)
    except ValueError as error:
        _corrupt(str(error))


def _read(data: bytes) -> dict[str, str | int | datetime | None]:
    if b"\0" in data:  # expat detects UTF-16 even without a byte order mark, despite the encoding it was given
        _corrupt("NUL byte, as in UTF-16; UTF-8 is required")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        _corrupt(f"byte {error.start} is not valid UTF-8; UTF-8 is required")
    if len(data) > _SHORT_BYTES and _LONG_NAMESPACE.search(data):
        _corrupt("a namespace is longer than 96 bytes")
    values = _Reader().read(data)
    if values.get("userId") is None:
        _corrupt("userId is missing")
    if values.get("sessionIndex", 0) is None:
        del values["sessionIndex"]
    return values


def readable_user_id(data: bytes) -> str | None:
    """Return the user id found in the bytes of a corrupt file, or ``None`` unless exactly one id is found."""
    found = set(_READABLE_USER_ID.findall(data[:MAX_BYTES]))
    return found.pop().decode("ascii") if len(found) == 1 else None


def resembles_save_file(data: bytes) -> bool:
    """Return whether the bytes are a save file or a recognizable part of one."""
    return _ROOT_NAME.encode() in data[:MAX_BYTES] or readable_user_id(data) is not None


def _corrupt(reason: str) -> NoReturn:
    raise CorruptSaveFileError(reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]}…") from None


class _Reader:
    """Reads one file with expat and collects the values of known keys."""

    def __init__(self) -> None:
        parser = expat.ParserCreate(encoding="utf-8", namespace_separator=" ")
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = lambda name, _id, _public, _subset: _corrupt(
            f"document type declaration {name!r} is not allowed"
        )
        parser.ProcessingInstructionHandler = lambda pi, _: _corrupt(f"processing instruction {pi!r} is not allowed")
        parser.StartNamespaceDeclHandler = lambda prefix, uri: self._uris[prefix].append(uri)
        parser.EndNamespaceDeclHandler = lambda prefix: self._uris[prefix].pop()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        self._parser = parser
        self._uris: defaultdict[str | None, list[str | None]] = defaultdict(lambda: [""])
        self._path: tuple[str, ...] = ()
        self._ignored_depth = 0
        self._key: str | None = None
        self._kind: str | None = None
        self._content: list[str] = []
        self._pair: list[str] = []
        self._seen: set[str] = set()
        self._values: dict[str, str | int | datetime | None] = {}

    def read(self, data: bytes) -> dict[str, str | int | datetime | None]:
        try:
            self._parser.Parse(data, True)  # noqa: FBT003  # expat accepts only a positional argument
        except expat.ExpatError as error:
            _corrupt(f"not well-formed XML: {error}")
        return self._values

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() != "utf-8":
            _corrupt(f"declared encoding {encoding!r}; UTF-8 is required")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._ignored_depth or (self._path[-1:] == (_VALUE,) and self._key not in FIELDS):
            self._ignored_depth += 1
            if self._ignored_depth > _MAX_IGNORED_DEPTH:
                _corrupt(f"elements are nested more than {_MAX_IGNORED_DEPTH} levels deep")
            return
        if name not in _GRAMMAR.get(self._path, ()):
            _corrupt(f"unexpected element {name.rpartition(' ')[2]!r}")
        self._path += (name,)
        self._content.clear()
        if name == _PAIR:
            self._pair.clear()
        elif name in (_KEY, _VALUE):
            self._pair.append(name)
            if self._pair not in ([_KEY], [_KEY, _VALUE]):
                _corrupt(_BAD_PAIR)
        if name == _VALUE:
            self._kind = self._type(attributes)

    def _type(self, attributes: dict[str, str]) -> str | None:
        if attributes.get(f"{INSTANCE} nil") in ("true", "1"):
            return None
        prefix, colon, kind = attributes.get(f"{INSTANCE} type", "").rpartition(":")
        uri = self._uris[prefix if colon else None][-1]
        return kind if uri == SCHEMA else f"{{{uri}}}{kind}"

    def _text(self, text: str) -> None:
        if self._ignored_depth:
            return
        if self._path[-1] in (_KEY, _VALUE):
            self._content.append(text)
        elif text.strip(" \t\r\n"):
            _corrupt(f"unexpected text {text[:40]!r}")

    def _end(self, name: str) -> None:
        if self._ignored_depth:
            self._ignored_depth -= 1
            return
        self._path = self._path[:-1]
        content = "".join(self._content)
        if name == _KEY:
            self._key = content
            if content in self._seen:
                _corrupt(f"duplicate key {content[:40]!r}")
            self._seen.add(content)
        elif name == _VALUE and self._key in FIELDS:
            self._values[self._key] = _typed_value(self._key, self._kind, content)
        elif name == _PAIR and self._pair != [_KEY, _VALUE]:
            _corrupt(_BAD_PAIR)


def _typed_value(key: str, kind: str | None, content: str) -> str | int | datetime | None:
    if kind is None:
        if content:
            _corrupt(f"{key} is null but has text")
        return None
    expected_kind = FIELDS[key][1]
    if kind != expected_kind:
        _corrupt(f"{key} must be of XML Schema type {expected_kind}, not {kind!r}")
    return content if kind == "string" else _READERS[kind](key, content)


def _int(key: str, content: str) -> int:
    if not _INT.fullmatch(content):
        _corrupt(f"{key} must be a whole number, not {content[:40]!r}")
    return int(content)


def _date_time(key: str, content: str) -> datetime:
    try:
        if not _DATE_TIME.fullmatch(content):
            raise ValueError  # noqa: TRY301  # the handler reports it
        return datetime.fromisoformat(content)
    except ValueError:
        _corrupt(f"{key} must be a dateTime with a time zone, not {content[:40]!r}")


def _boolean(key: str, content: str) -> bool:
    if content not in _BOOLEANS:
        _corrupt(f"{key} must be a boolean, not {content[:40]!r}")
    return _BOOLEANS[content]


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_READERS: dict[str, Callable[[str, str], int | datetime]] = {"int": _int, "dateTime": _date_time, "boolean": _boolean}
