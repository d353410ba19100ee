"""The save file format: .NET files can be read, our files have the same structure, and hostile bytes are rejected."""

from __future__ import annotations

import re
import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_session_persistence import CorruptSaveFileError, Snapshot, codec, dumps, loads
from client_session_persistence.codec import SCHEMA, readable_user_id
from event_ids import event_id
from hostile_bytes import END, HOSTILE, USER, file, pair
from strategies import snapshots

if TYPE_CHECKING:
    from pathlib import Path

FULL = Snapshot(
    user_id=USER,
    session_id=event_id(1),
    previous_session_id=event_id(2),
    session_index=3,
    first_event_id=event_id(4),
    first_event_timestamp=datetime(2026, 11, 23, 9, 30, 0, 123000, tzinfo=UTC),
    event_index=5,
    last_activity=datetime(2026, 11, 23, 9, 31, 0, 123456, tzinfo=UTC),
    session_start=datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
    background=True,
)


def test_dotnet_files_are_read(dotnet_file: Path) -> None:
    """Files that the .NET tracker wrote or can read are loaded with all their values."""
    expected = {
        "dotnet_first_session.xml": Snapshot(
            user_id="1951e5e8-f946-4a7d-a12a-937c3b55b238",
            session_id="d43ae5d5-0482-459b-9e69-2a6d4e848ca5",
            session_index=1,
        ),
        "dotnet_later_session.xml": Snapshot(
            user_id="8a0d923f-f6d9-4a67-8d5a-31e4ec77528d",
            session_id="5ee9e684-9020-4d6f-87cb-b9eba5cafed2",
            previous_session_id="ae7278ec-815e-4e80-a78d-9edfe757cb9a",
            session_index=3,
        ),
        "hand_written_variant.xml": Snapshot(
            user_id="7c1df00c-cd2b-4dc5-93e1-231e2ba9a3d9",
            session_id="ccdb8632-7bdc-4cd7-be9e-03a559888418",
            session_index=4,
            event_index=7,
        ),
    }
    assert loads(dotnet_file.read_bytes()) == expected[dotnet_file.name]


def test_our_files_start_with_the_dotnet_bytes(dotnet_file: Path) -> None:
    """A file that we write starts with the same bytes as a .NET file; our own keys follow."""
    theirs = dotnet_file.read_bytes()
    if dotnet_file.name.startswith("dotnet"):
        assert dumps(loads(theirs)).startswith(theirs.removesuffix(END.encode()))
    assert dumps(loads(theirs)).endswith(END.encode())


def test_every_key_is_written() -> None:
    """A file has eleven keys with .NET's types; null values are nil, and times are in UTC."""
    text = dumps(FULL).decode()
    keys = [part.split("<")[0] for part in text.split("<Key>")[1:]]
    assert keys == [
        "userId",
        "sessionId",
        "previousSessionId",
        "sessionIndex",
        "storageMechanism",
        "firstEventId",
        "firstEventTimestamp",
        "eventIndex",
        "lastActivity",
        "sessionStart",
        "background",
    ]
    assert f'<Value i:type="a:dateTime" xmlns:a="{SCHEMA}">2026-11-23T09:30:00.123Z</Value>' in text
    assert f'<Value i:type="a:int" xmlns:a="{SCHEMA}">5</Value>' in text
    assert f'<Value i:type="a:boolean" xmlns:a="{SCHEMA}">true</Value>' in text
    nulls = dumps(Snapshot(user_id=USER, session_id=event_id(1))).decode()
    assert '<Key>previousSessionId</Key><Value i:nil="true"/>' in nulls


def test_null_session_index_is_read_as_no_session() -> None:
    """A file whose sessionIndex is null is read as if that key were missing."""
    null = '<KeyValueOfstringanyType><Key>sessionIndex</Key><Value i:nil="true"/></KeyValueOfstringanyType>'
    assert loads(file(null)) == Snapshot(user_id=USER)


def test_first_run_writes_only_the_user() -> None:
    """The file written on a first run has only one key."""
    assert dumps(Snapshot(user_id=USER)).count(b"<Key>") == 1


@given(snapshots())
def test_snapshots_round_trip(snapshot: Snapshot) -> None:
    """Any snapshot that can be constructed survives a round trip."""
    assert loads(dumps(snapshot)) == snapshot


@pytest.mark.parametrize(
    "extra",
    [
        pair("lastEventAt", "2026-11-23T09:30:00.123", "x:dateTime"),
        pair("newer", "7", "x:long"),
        pair("newer", "<a><b c='d'>text</b></a>", "y:anything"),
        pair("", "empty key"),
        "<!-- a comment -->",
        "\r\n\t ",
    ],
)
def test_unknown_content_is_ignored(extra: str) -> None:
    """Unknown keys are ignored, whatever their type and content, and so are comments and whitespace."""
    assert loads(file(extra, pair("sessionIndex", "3", "x:int"))) == Snapshot(user_id=USER, session_index=3)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-11-23T09:30:00Z", datetime(2026, 11, 23, 9, 30, tzinfo=UTC)),
        ("2026-11-23T09:30:00.1234567Z", datetime(2026, 11, 23, 9, 30, 0, 123456, tzinfo=UTC)),
        ("2026-11-23T09:30:00.5+02:00", datetime(2026, 11, 23, 7, 30, 0, 500000, tzinfo=UTC)),
        ("2026-11-23T09:30:00-00:30", datetime(2026, 11, 23, 10, 0, tzinfo=UTC)),
    ],
)
def test_dotnet_times_are_read(time: str, expected: datetime) -> None:
    """.NET writes seconds with up to seven decimal places, and adds a UTC offset to local times."""
    assert loads(file(pair("lastActivity", time, "x:dateTime"))).last_activity == expected


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_rejected(name: str) -> None:
    """Hostile bytes raise CorruptSaveFileError and no other error, and the message gives the reason."""
    data, reason = HOSTILE[name]
    with pytest.raises(CorruptSaveFileError) as caught:
        loads(data)
    assert reason in str(caught.value)


@pytest.mark.parametrize("value", [{}, None, b"", "x", 7, [[0] * 1_000_000]], ids=lambda value: type(value).__name__)
def test_only_snapshots_are_written(value: Any) -> None:  # noqa: ANN401  # wrong on purpose
    """dumps() raises TypeError for anything but a snapshot, with a short message that says what it got."""
    with pytest.raises(TypeError, match="snapshot must be a Snapshot, not ") as caught:
        dumps(value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["x", "", None, {}, 7, "x" * 1_000_000], ids=lambda value: type(value).__name__)
def test_only_bytes_are_read(value: Any) -> None:  # noqa: ANN401  # wrong on purpose
    """loads() raises TypeError for anything but bytes, with a short message that says what it got."""
    with pytest.raises(TypeError, match="data must be bytes, not ") as caught:
        loads(value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", HOSTILE)
def test_rejecting_a_file_is_cheap(name: str) -> None:
    """Rejecting a 64 KiB file takes less than 4 MiB of memory, and the error message is short."""
    data, _ = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(CorruptSaveFileError) as caught:
            loads(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024
    assert len(str(caught.value)) < 300


def test_unknown_elements_may_be_nested() -> None:
    """Elements under an unknown key are ignored if they are nested no more than 64 levels deep."""
    assert loads(file(pair("newer", "<a>" * 64 + "</a>" * 64))) == Snapshot(user_id=USER)


def test_truncated_file_is_rejected() -> None:
    """A file truncated at any byte raises CorruptSaveFileError."""
    data = dumps(FULL)
    for length in range(len(data)):
        with pytest.raises(CorruptSaveFileError):
            loads(data[:length])


def test_file_with_a_flipped_bit_is_read_or_rejected() -> None:
    """A file with any single bit flipped either loads as a snapshot or raises CorruptSaveFileError."""
    data = dumps(FULL)
    rejected = 0
    for index in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[index // 8] ^= 1 << index % 8
        try:
            loads(bytes(damaged))
        except CorruptSaveFileError:
            rejected += 1
    assert rejected > len(data) * 4


@given(st.binary() | st.lists(st.sampled_from([*file().split(b">"), b"<", b"<!DOCTYPE", b"&a;", b"\0"])).map(b">".join))
def test_random_bytes_are_read_or_rejected(data: bytes) -> None:
    """Random bytes either load as a snapshot that survives a round trip or raise CorruptSaveFileError."""
    try:
        snapshot = loads(data)
    except CorruptSaveFileError:
        return
    assert loads(dumps(snapshot)) == snapshot


TAG_OR_TEXT = re.compile(r"<[^>]*>|[^<]+")
FOREIGN = [
    "<a>", "</a>", "<!-- a -->", "<![CDATA[a]]>", "<?a b?>", "<!DOCTYPE a>", "&lt;", "&#0;", "&#x41;", "&a;", "1_000",
    "2147483648", "-1", " ", "é", '<Value i:nil="true"/>', '<Value i:nil="true" xmlns="urn:a">', "<Key/>",
    f'<Value i:type="a:int" xmlns:a="{SCHEMA}">', f'<Value i:type="a:dateTime" xmlns:a="{SCHEMA}">',
]  # fmt: skip


@st.composite
def malformed(draw: st.DrawFn) -> bytes:
    """Take a valid file and drop, duplicate, swap, copy, insert or replace some of its tags and text nodes."""
    pieces = TAG_OR_TEXT.findall(dumps(draw(snapshots())).decode())
    for _ in range(draw(st.integers(1, 4))):
        index, other_index = draw(st.integers(0, len(pieces) - 1)), draw(st.integers(0, len(pieces) - 1))
        match draw(st.sampled_from(["drop", "duplicate", "swap", "copy", "insert", "replace"])):
            case "drop" if len(pieces) > 1:
                del pieces[index]
            case "duplicate":
                pieces.insert(index, pieces[index])
            case "swap":
                pieces[index], pieces[other_index] = pieces[other_index], pieces[index]
            case "copy":
                pieces[index:index] = pieces[other_index : other_index + 8]
            case "insert":
                pieces.insert(index, draw(st.sampled_from(FOREIGN)))
            case _:
                pieces[index] = draw(st.sampled_from(FOREIGN))
    return "".join(pieces).encode()


@given(malformed())
def test_malformed_structure_is_read_or_rejected(data: bytes) -> None:
    """A malformed file either loads as a snapshot that survives a round trip or raises CorruptSaveFileError."""
    try:
        snapshot = loads(data)
    except CorruptSaveFileError:
        return
    assert loads(dumps(snapshot)) == snapshot


def test_user_id_is_recovered_from_a_corrupt_file() -> None:
    """A user id is recovered only if no other user id appears in the bytes."""
    assert readable_user_id(dumps(FULL)[:300]) == USER
    assert readable_user_id(dumps(FULL)[:200]) is None
    assert readable_user_id(dumps(FULL) * 2) == USER
    assert readable_user_id(dumps(FULL) + dumps(Snapshot(user_id=event_id(8)))) is None


@given(snapshots(), st.data())
def test_pattern_and_parser_agree(snapshot: Snapshot, data: st.DataObject) -> None:
    """The pattern for our own files reads the same values as expat, even if one byte was changed."""
    written = bytearray(dumps(snapshot))
    if data.draw(st.booleans()):
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    by_pattern = load_or_reason(bytes(written))
    with mock.patch.object(codec, "_OURS", re.compile("(?!)")):
        assert by_pattern == load_or_reason(bytes(written))


def test_pattern_requires_every_byte_of_the_frame() -> None:
    """The pattern for our own files does not match a file in which a dot or bracket was changed."""
    written = dumps(FULL)
    for index, byte in enumerate(written):
        if not chr(byte).isalnum():
            changed = written[:index] + b"x" + written[index + 1 :]
            by_pattern = load_or_reason(changed)
            with mock.patch.object(codec, "_OURS", re.compile("(?!)")):
                assert by_pattern == load_or_reason(changed)


def load_or_reason(data: bytes) -> Snapshot | str:
    """Return the snapshot, or the reason the bytes were rejected."""
    try:
        return loads(data)
    except CorruptSaveFileError as error:
        return error.reason
