"""The save file's format: .NET's files read, ours have their shape, hostile bytes are refused and nothing worse."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from event_ids import event_id
from hypothesis import given
from hypothesis import strategies as st
from strategies import snapshots

from persistence import CorruptSaveFileError, Snapshot, dumps, loads
from persistence.codec import ARRAYS, INSTANCE, SCHEMA, readable_user_id

if TYPE_CHECKING:
    from pathlib import Path

USER = event_id(7)
ROOT = f'<ArrayOfKeyValueOfstringanyType xmlns="{ARRAYS}" xmlns:i="{INSTANCE}" xmlns:x="{SCHEMA}">'
END = "</ArrayOfKeyValueOfstringanyType>"


def pair(key: str, value: str, kind: str = "x:string") -> str:
    """Return one key and value as they stand in a file."""
    return f"<KeyValueOfstringanyType><Key>{key}</Key><Value i:type='{kind}'>{value}</Value></KeyValueOfstringanyType>"


def file(*pairs: str, before: str = "") -> bytes:
    """Return a file of a user and these pairs."""
    return (before + ROOT + pair("userId", USER) + "".join(pairs) + END).encode()


FULL = Snapshot(
    user_id=USER,
    session_id=event_id(1),
    previous_session_id=event_id(2),
    session_index=3,
    first_event_id=event_id(4),
    first_event_timestamp=datetime(2026, 11, 23, 9, 30, 0, 123000, tzinfo=UTC),
    event_index=5,
    last_activity=datetime(2026, 11, 23, 9, 31, 0, 123456, tzinfo=UTC),
)


def test_dotnets_files_are_read(dotnet_file: Path) -> None:
    """Each file that the .NET tracker wrote, or was seen to read, gives what stands in it."""
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


def test_our_files_have_dotnets_shape(dotnet_file: Path) -> None:
    """What we write of .NET's session begins, to the byte, as .NET wrote it; our keys follow."""
    theirs = dotnet_file.read_bytes()
    if dotnet_file.name.startswith("dotnet"):
        assert dumps(loads(theirs)).startswith(theirs.removesuffix(END.encode()))
    assert dumps(loads(theirs)).endswith(END.encode())


def test_every_key_is_written() -> None:
    """Nine keys, with .NET's types; null is nil; times are UTC."""
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
    ]
    assert f'<Value i:type="a:dateTime" xmlns:a="{SCHEMA}">2026-11-23T09:30:00.123Z</Value>' in text
    assert f'<Value i:type="a:int" xmlns:a="{SCHEMA}">5</Value>' in text
    nulls = dumps(Snapshot(user_id=USER, session_id=event_id(1))).decode()
    assert '<Key>previousSessionId</Key><Value i:nil="true"/>' in nulls


def test_the_user_alone_is_written_alone() -> None:
    """A first run's file has one key."""
    assert dumps(Snapshot(user_id=USER)).count(b"<Key>") == 1


@given(snapshots())
def test_whatever_can_be_constructed_reads_back_equal(snapshot: Snapshot) -> None:
    """Round trip."""
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
def test_what_is_not_known_is_ignored(extra: str) -> None:
    """Unknown keys of any type and content, comments and white space change nothing."""
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
def test_dotnets_times_are_read(time: str, expected: datetime) -> None:
    """.NET writes up to seven digits, and an offset for local times."""
    assert loads(file(pair("lastActivity", time, "x:dateTime"))).last_activity == expected


UUIDS = pair("sessionId", event_id(1))
LAUGHS = "<!DOCTYPE a [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>"
ATTRIBUTES = " ".join(f"q:a{i}=''" for i in range(2500))
DECLARED = "<?xml version='1.0' encoding='{}'?>"

HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no element found"),
    "white space": (b" \n", "no element found"),
    "not XML": (b"userId=7", "not well-formed"),
    "64 KiB and a byte": (file(f"<!--{'x' * 65536}-->"), "65536 are allowed"),
    "not UTF-8": (file().replace(b"userId", b"user\xffd"), "is not UTF-8"),
    "Latin-1, declared": (DECLARED.format("iso-8859-1").encode() + file(), "its encoding is 'iso-8859-1'"),
    "ASCII, declared": (DECLARED.format("us-ascii").encode() + file(), "its encoding is 'us-ascii'"),
    "unknown encoding": (DECLARED.format("x-none").encode() + file(), "its encoding is 'x-none'"),
    "lying encoding": (DECLARED.format("utf-16").encode() + file(), "its encoding is 'utf-16'"),
    "UTF-16 with a mark": (file().decode().encode("utf-16"), "has a NUL byte"),
    "UTF-16 without": (file().decode().encode("utf-16-le"), "has a NUL byte"),
    "UTF-32": (file().decode().encode("utf-32"), "has a NUL byte"),
    "NUL": (file().replace(b"<Key>userId", b"<Key>\0userId"), "has a NUL byte"),
    "control character": (file(pair("newer", "\x01")), "not well-formed"),
    "escaped control character": (file(pair("newer", "&#1;")), "not well-formed"),
    "DTD": (file(before="<!DOCTYPE a>"), "document type declaration"),
    "billion laughs": (file(pair("newer", "&b;"), before=LAUGHS), "document type declaration"),
    "external entity": (
        file(pair("newer", "&e;"), before="<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>"),
        "document type declaration",
    ),
    "remote DTD": (file(before="<!DOCTYPE a SYSTEM 'http://127.0.0.1/a.dtd'>"), "document type declaration"),
    "undefined entity": (file(pair("newer", "&nbsp;")), "not well-formed"),
    "processing instruction": (file("<?php 1?>"), "processing instruction"),
    "stylesheet": (file(before="<?xml-stylesheet href='a'?>"), "processing instruction"),
    "long namespace": (
        file(pair("newer", f"<a xmlns:q='{'u' * 30_000}' {ATTRIBUTES}/>")),
        "a namespace of more than 96 bytes",
    ),
    "long namespace, after a line break": (
        file(pair("newer", f'<a\nxmlns \n= \t"{"u" * 30_000}">{"<b/>" * 7000}</a>')),
        "a namespace of more than 96 bytes",
    ),
    "depth within what is ignored": (file(pair("newer", "<a>" * 65 + "</a>" * 65)), "more than 64 deep"),
    "depth of names": (file(pair("newer", "".join(f"<a{i}>" for i in range(9000)))), "more than 64 deep"),
    "long text": (file(pair("sessionId", "é" * 30_000)), "session_id must be the text of a UUID or None, not 'éé"),
    "long encoding": (DECLARED.format("x" * 60_000).encode() + file(), "its encoding is 'xxx"),
    "two roots": (file() + file(), "not well-formed"),
    "another root": (b"<a/>", "element 'a' does not belong"),
    "another namespace": (file().replace(ARRAYS.encode(), b"urn:a"), "does not belong"),
    "depth": (b"<a>" * 5000, "does not belong"),
    "depth within": (file("<KeyValueOfstringanyType><Key><Key/></Key></KeyValueOfstringanyType>"), "does not belong"),
    "text between": (file("text"), "stands between elements"),
    "key alone": (file("<KeyValueOfstringanyType><Key>a</Key></KeyValueOfstringanyType>"), "one Key followed"),
    "value first": (
        file("<KeyValueOfstringanyType><Value/><Key>a</Key></KeyValueOfstringanyType>"),
        "one Key followed",
    ),
    "two values": (
        file("<KeyValueOfstringanyType><Key>a</Key><Value/><Value/></KeyValueOfstringanyType>"),
        "one Key followed",
    ),
    "empty pair": (file("<KeyValueOfstringanyType/>"), "one Key followed"),
    "duplicate key": (file(UUIDS, UUIDS), "'sessionId' stands in it twice"),
    "duplicate user": (file(pair("userId", event_id(8))), "'userId' stands in it twice"),
    "duplicate unknown key": (file(pair("a", "1"), pair("a", "2")), "'a' stands in it twice"),
    "no user": ((ROOT + UUIDS + END).encode(), "has no userId"),
    "nothing": ((ROOT + END).encode(), "has no userId"),
    "null user": (file().replace(b"i:type='x:string'", b"i:nil='true'").replace(USER.encode(), b""), "has no userId"),
    "null with text": (file().replace(b"i:type='x:string'", b"i:nil='true'"), "userId is null and yet has text"),
    "no type": (file().replace(b" i:type='x:string'", b""), "userId is of type"),
    "long index": (file(pair("sessionIndex", "3", "x:long")), "sessionIndex is of type 'long', and int is allowed"),
    "text index": (file(pair("sessionIndex", "3")), "sessionIndex is of type 'string'"),
    "type of no schema": (file(pair("sessionIndex", "3", "y:int")), "not of XML Schema"),
    "type of another schema": (file(pair("sessionIndex", "3", "i:int")), "not of XML Schema"),
    "type without prefix": (file(pair("sessionIndex", "3", "int")), "not of XML Schema"),
    "underscore": (file(pair("sessionIndex", "1_000", "x:int")), "a whole number is allowed"),
    "plus": (file(pair("sessionIndex", "+5", "x:int")), "a whole number is allowed"),
    "spaces": (file(pair("sessionIndex", " 7 ", "x:int")), "a whole number is allowed"),
    "leading zero": (file(pair("sessionIndex", "07", "x:int")), "a whole number is allowed"),
    "other digits": (file(pair("sessionIndex", "\u0667", "x:int")), "a whole number is allowed"),
    "5,000 digits": (file(pair("sessionIndex", "9" * 5000, "x:int")), "a whole number is allowed"),
    "no digits": (file(pair("sessionIndex", "", "x:int")), "a whole number is allowed"),
    "negative": (file(pair("sessionIndex", "-1", "x:int")), "session_index must be"),
    "2³¹": (file(pair("sessionIndex", "2147483648", "x:int")), "session_index must be"),
    "2³¹ events": (file(pair("eventIndex", "2147483648", "x:int")), "event_index must be"),
    "broken UUID": (file(pair("sessionId", event_id(1)[:-1])), "session_id must be"),
    "upper-case user": (file().replace(USER.encode(), b"A" * 16), "user_id must be"),
    "mechanism": (file(pair("storageMechanism", "DISK")), "storage_mechanism must be"),
    "naive time": (file(pair("lastActivity", "2026-11-23T09:30:00", "x:dateTime")), "dateTime with time zone"),
    "no such day": (file(pair("lastActivity", "2026-02-30T09:30:00Z", "x:dateTime")), "dateTime with time zone"),
    "no such zone": (file(pair("lastActivity", "2026-02-20T09:30:00+99:00", "x:dateTime")), "dateTime with time zone"),
    "year 0": (file(pair("lastActivity", "0000-01-01T00:00:00Z", "x:dateTime")), "dateTime with time zone"),
    "before year 1": (file(pair("lastActivity", "0001-01-01T00:00:00+01:00", "x:dateTime")), "years 1 to 9999"),
    "no time": (file(pair("lastActivity", "yesterday", "x:dateTime")), "dateTime with time zone"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_save_file_is_refused(name: str) -> None:
    """CorruptSaveFileError with the reason, and nothing else."""
    data, reason = HOSTILE[name]
    with pytest.raises(CorruptSaveFileError) as caught:
        loads(data)
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_refusing_is_cheap(name: str) -> None:
    """No file of 64 KiB costs more than 4 MiB, and no reason fills a log."""
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


def test_what_is_ignored_may_be_nested() -> None:
    """Up to 64 levels of unknown elements under an unknown key are ignored."""
    assert loads(file(pair("newer", "<a>" * 64 + "</a>" * 64))) == Snapshot(user_id=USER)


def test_truncation_at_every_byte_is_noticed() -> None:
    """No prefix of a file is a file."""
    whole = dumps(FULL)
    for length in range(len(whole)):
        with pytest.raises(CorruptSaveFileError):
            loads(whole[:length])


def test_a_flipped_bit_is_read_or_refused() -> None:
    """One bit flipped at every byte gives a snapshot or CorruptSaveFileError."""
    whole = dumps(FULL)
    refused = 0
    for place in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        try:
            loads(bytes(damaged))
        except CorruptSaveFileError:
            refused += 1
    assert refused > len(whole) * 4


@given(st.binary() | st.lists(st.sampled_from([*file().split(b">"), b"<", b"<!DOCTYPE", b"&a;", b"\0"])).map(b">".join))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Whatever the bytes are: a snapshot, which reads back equal, or CorruptSaveFileError."""
    try:
        snapshot = loads(data)
    except CorruptSaveFileError:
        return
    assert loads(dumps(snapshot)) == snapshot


def test_the_user_is_seen_in_a_ruin() -> None:
    """Just one user id in the bytes is it; none, or two different ones, are not."""
    assert readable_user_id(dumps(FULL)[:300]) == USER
    assert readable_user_id(dumps(FULL)[:200]) is None
    assert readable_user_id(dumps(FULL) * 2) == USER
    assert readable_user_id(dumps(FULL) + dumps(Snapshot(user_id=event_id(8)))) is None
