"""The save file's format: the XML that .NET's ``DataContractSerializer`` writes of a ``Dictionary<string, object>``.

Reading is strict and safe for files of unknown origin: expat with every door shut that XML opens (no DTD, hence no
entities; no processing instructions; UTF-8 alone; a fixed grammar, and few levels of what is ignored; short namespaces;
at most `MAX_BYTES`).
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn
from xml.parsers import expat

from client_session_persistence.errors import CorruptSaveFileError
from client_session_persistence.snapshot import Snapshot, iso_time

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 64 * 1024
_MAX_REASON = 200
_MAX_IGNORED_DEPTH = 64

# Expat puts the namespace before each name: 64 KiB of one long namespace and many short names become 200 MiB. A file
# of ours is far shorter than where that begins to matter, and need not be searched.
_SHORT_BYTES = 4 * 1024
_LONG_NAMESPACE = re.compile(rb"\sxmlns[^\s=]*\s*=\s*(?:\"[^\"]{97}|'[^']{97})")

ARRAYS = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
SCHEMA = "http://www.w3.org/2001/XMLSchema"

_ROOT = f"{ARRAYS} ArrayOfKeyValueOfstringanyType"
_PAIR = f"{ARRAYS} KeyValueOfstringanyType"
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
}
"""Key in the file: field of the snapshot, and type in the file."""

_INT = re.compile(r"0|-?[1-9][0-9]{0,9}")
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_READABLE_USER_ID = re.compile(
    rb"userId</[^<>]*>\s*<[^<>]*>([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{16})</"
)


def dumps(snapshot: Snapshot) -> bytes:
    """Write a snapshot as the .NET tracker would: one line of UTF-8, no declaration.

    A snapshot of the user alone becomes the user id alone; any other has every key, null as ``i:nil="true"``.
    """
    if snapshot.session_id is None and snapshot == Snapshot(user_id=snapshot.user_id):
        return (_USER_ALONE % _value("userId", snapshot.user_id)).encode("ascii")
    return (_WHOLE % tuple(_value(key, getattr(snapshot, field)) for key, (field, _) in FIELDS.items())).encode("ascii")


def _document(values: dict[str, str]) -> str:
    root, pair = "ArrayOfKeyValueOfstringanyType", "KeyValueOfstringanyType"
    pairs = "".join(f"<{pair}><Key>{key}</Key>{value}</{pair}>" for key, value in values.items())
    return f'<{root} xmlns="{ARRAYS}" xmlns:i="{INSTANCE}">{pairs}</{root}>'


def _value(key: str, value: str | int | datetime | None) -> str:
    # No text is escaped: the snapshot's validators let nothing through that XML would read otherwise.
    if value is None:
        return _NULL
    return _element(key, iso_time(value) if isinstance(value, datetime) else str(value))


def _element(key: str, text: str) -> str:
    return f'<Value i:type="a:{FIELDS[key][1]}" xmlns:a="{SCHEMA}">{text}</Value>'


_NULL = '<Value i:nil="true"/>'
_WHOLE = _document(dict.fromkeys(FIELDS, "%s"))
_USER_ALONE = _document({"userId": "%s"})


def _our_pattern() -> re.Pattern[str]:
    pattern = re.escape(_document({key: f"@{key}@" for key in FIELDS}))
    for key in FIELDS:
        value = re.escape(_element(key, "@")).replace("@", "([-.:_0-9A-Za-z]*)")
        null = "" if key in ("userId", "sessionIndex") else f"|{re.escape(_NULL)}"
        pattern = pattern.replace(f"@{key}@", f"(?:{value}{null})")
    return re.compile(pattern)


_OURS = _our_pattern()
"""What `dumps` writes of a session; reading a file by it takes a tenth of the time that expat takes."""


def loads(data: bytes) -> Snapshot:
    """Read a save file's bytes, ours or the .NET tracker's; unknown keys are ignored.

    Raises:
        CorruptSaveFileError: they are no save file; the reason says why.

    """
    if len(data) > MAX_BYTES:
        _corrupt(f"it has {len(data)} bytes, and {MAX_BYTES} are allowed")
    if ours := _OURS.fullmatch(data.decode("latin-1")):
        return _snapshot(
            {
                field: text if text is None or read is None else read(key, text)
                for (key, field, read), text in zip(_READERS, ours.groups(), strict=True)
            }
        )
    if b"\0" in data:  # expat takes UTF-16 without a mark for what it is, whatever encoding it is told
        _corrupt("it has a NUL byte, as in UTF-16, and UTF-8 alone is allowed")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        _corrupt(f"byte {error.start} is not UTF-8")
    if len(data) > _SHORT_BYTES and _LONG_NAMESPACE.search(data):
        _corrupt("it has a namespace of more than 96 bytes, which is not allowed")
    values = _Reader().read(data)
    if values.get("userId") is None:
        _corrupt("it has no userId")
    if values.get("sessionIndex", 0) is None:
        del values["sessionIndex"]
    return _snapshot({FIELDS[key][0]: value for key, value in values.items()})


def _snapshot(fields: dict[str, Any]) -> Snapshot:
    try:
        return Snapshot(**fields)
    except ValueError as error:
        _corrupt(str(error))


def readable_user_id(data: bytes) -> str | None:
    """Return the one user id that can still be seen in a corrupt file's bytes, if there is just one."""
    found = set(_READABLE_USER_ID.findall(data[:MAX_BYTES]))
    return found.pop().decode("ascii") if len(found) == 1 else None


def _corrupt(reason: str) -> NoReturn:
    raise CorruptSaveFileError(reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]}…") from None


class _Reader:
    """One run of expat over one file; collects the values of the known keys."""

    def __init__(self) -> None:
        parser = expat.ParserCreate(encoding="utf-8", namespace_separator=" ")
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.ProcessingInstructionHandler = self._instruction
        parser.StartNamespaceDeclHandler = self._start_prefix
        parser.EndNamespaceDeclHandler = self._end_prefix
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        self._parser = parser
        self._prefixes: dict[str | None, list[str | None]] = {}
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
            self._parser.Parse(data, True)  # noqa: FBT003  # expat takes it by position alone
        except expat.ExpatError as error:
            _corrupt(f"it is not well-formed XML: {error}")
        return self._values

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() != "utf-8":
            _corrupt(f"it says that its encoding is {encoding!r}, and UTF-8 alone is allowed")

    def _doctype(self, name: str, *_: object) -> None:
        _corrupt(f"it has a document type declaration ({name!r}), which is not allowed")

    def _instruction(self, target: str, _data: str) -> None:
        _corrupt(f"it has a processing instruction ({target!r}), which is not allowed")

    def _start_prefix(self, prefix: str | None, uri: str | None) -> None:
        self._prefixes.setdefault(prefix, []).append(uri)

    def _end_prefix(self, prefix: str | None) -> None:
        self._prefixes[prefix].pop()

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._ignored_depth or (self._path[-1:] == (_VALUE,) and self._key not in FIELDS):
            self._ignored_depth += 1
            if self._ignored_depth > _MAX_IGNORED_DEPTH:
                _corrupt(f"it has elements in each other more than {_MAX_IGNORED_DEPTH} deep, which is not allowed")
            return
        if name not in _GRAMMAR.get(self._path, ()):
            _corrupt(f"element {name.rpartition(' ')[2]!r} does not belong where it stands")
        self._path += (name,)
        self._content.clear()
        if name == _PAIR:
            self._pair.clear()
        elif name in (_KEY, _VALUE):
            self._pair.append(name)
            if self._pair not in ([_KEY], [_KEY, _VALUE]):
                _corrupt("a pair is not one Key followed by one Value")
        if name == _VALUE:
            self._kind = self._type(attributes)

    def _type(self, attributes: dict[str, str]) -> str | None:
        if attributes.get(f"{INSTANCE} nil") in ("true", "1"):
            return None
        prefix, colon, kind = attributes.get(f"{INSTANCE} type", "").rpartition(":")
        uris = self._prefixes.get(prefix if colon else None)
        return kind if uris and uris[-1] == SCHEMA else f"{{not of XML Schema}}{kind}"

    def _text(self, text: str) -> None:
        if self._ignored_depth:
            return
        if self._path[-1] in (_KEY, _VALUE):
            self._content.append(text)
        elif text.strip(" \t\r\n"):
            _corrupt(f"text {text[:40]!r} stands between elements")

    def _end(self, name: str) -> None:
        if self._ignored_depth:
            self._ignored_depth -= 1
            return
        self._path = self._path[:-1]
        content = "".join(self._content)
        if name == _KEY:
            self._key = content
            if content in self._seen:
                _corrupt(f"key {content[:40]!r} stands in it twice")
            self._seen.add(content)
        elif name == _VALUE and self._key in FIELDS:
            self._values[self._key] = _typed(self._key, self._kind, content)
        elif name == _PAIR and self._pair != [_KEY, _VALUE]:
            _corrupt("a pair is not one Key followed by one Value")


def _typed(key: str, kind: str | None, content: str) -> str | int | datetime | None:
    if kind is None:
        if content:
            _corrupt(f"{key} is null and yet has text")
        return None
    wanted = FIELDS[key][1]
    if kind != wanted:
        _corrupt(f"{key} is of type {kind or 'nothing'!r}, and {wanted} is allowed")
    read = _BY_KIND.get(kind)
    return content if read is None else read(key, content)


def _int(key: str, content: str) -> int:
    if not _INT.fullmatch(content):
        _corrupt(f"{key} is {content[:40]!r}, and a whole number is allowed")
    return int(content)


def _date_time(key: str, content: str) -> datetime:
    try:
        if not _DATE_TIME.fullmatch(content):
            raise ValueError  # noqa: TRY301  # one way out for what the pattern and what the calendar refuses
        return datetime.fromisoformat(content)
    except ValueError:
        _corrupt(f"{key} is {content[:40]!r}, and a dateTime with time zone is allowed")


_BY_KIND: dict[str, Callable[[str, str], int | datetime]] = {"int": _int, "dateTime": _date_time}
_READERS = [(key, field, _BY_KIND.get(kind)) for key, (field, kind) in FIELDS.items()]
"""Key, field, and what reads its text; ``None``: it stays text."""
