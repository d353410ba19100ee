"""Malicious and damaged files, with the error message that each must produce."""

from __future__ import annotations

from client_session_persistence.codec import ARRAYS, INSTANCE, SCHEMA
from event_ids import event_id

USER = event_id(7)
ROOT = f'<ArrayOfKeyValueOfstringanyType xmlns="{ARRAYS}" xmlns:i="{INSTANCE}" xmlns:x="{SCHEMA}">'
END = "</ArrayOfKeyValueOfstringanyType>"


def pair(key: str, value: str, kind: str = "x:string") -> str:
    """Return a key and its value as XML."""
    return f"<KeyValueOfstringanyType><Key>{key}</Key><Value i:type='{kind}'>{value}</Value></KeyValueOfstringanyType>"


def file(*pairs: str, before: str = "") -> bytes:
    """Return a save file with a user and these pairs."""
    return (before + ROOT + pair("userId", USER) + "".join(pairs) + END).encode()


SESSION_ID = pair("sessionId", event_id(1))
BILLION_LAUGHS = "<!DOCTYPE a [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>"
ATTRIBUTES = " ".join(f"q:a{i}=''" for i in range(2500))
DECLARATION = "<?xml version='1.0' encoding='{}'?>"

HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty (no element found)"),
    "whitespace": (b" \n", "it is empty"),
    "not XML": (b"userId=7", "not well-formed"),
    "more than 64 KiB": (file(f"<!--{'x' * 65536}-->"), "more than the maximum of 65536"),
    "not UTF-8": (file().replace(b"userId", b"user\xffd"), "is not valid UTF-8"),
    "declared as Latin-1": (DECLARATION.format("iso-8859-1").encode() + file(), "declared encoding 'iso-8859-1'"),
    "declared as ASCII": (DECLARATION.format("us-ascii").encode() + file(), "declared encoding 'us-ascii'"),
    "unknown encoding": (DECLARATION.format("x-none").encode() + file(), "declared encoding 'x-none'"),
    "wrong encoding declared": (DECLARATION.format("utf-16").encode() + file(), "declared encoding 'utf-16'"),
    "UTF-16 with a byte order mark": (file().decode().encode("utf-16"), "NUL byte, as in UTF-16"),
    "UTF-16 without a byte order mark": (file().decode().encode("utf-16-le"), "NUL byte, as in UTF-16"),
    "UTF-32": (file().decode().encode("utf-32"), "NUL byte, as in UTF-16"),
    "NUL byte": (file().replace(b"<Key>userId", b"<Key>\0userId"), "NUL byte, as in UTF-16"),
    "control character": (file(pair("newer", "\x01")), "not well-formed"),
    "escaped control character": (file(pair("newer", "&#1;")), "not well-formed"),
    "DTD": (file(before="<!DOCTYPE a>"), "document type declaration"),
    "billion laughs": (file(pair("newer", "&b;"), before=BILLION_LAUGHS), "document type declaration"),
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
        "a namespace is longer than 96 bytes",
    ),
    "long namespace after a line break": (
        file(pair("newer", f'<a\nxmlns \n= \t"{"u" * 30_000}">{"<b/>" * 7000}</a>')),
        "a namespace is longer than 96 bytes",
    ),
    "unknown elements nested too deeply": (file(pair("newer", "<a>" * 65 + "</a>" * 65)), "64 levels deep"),
    "many different elements nested too deeply": (
        file(pair("newer", "".join(f"<a{i}>" for i in range(9000)))),
        "64 levels deep",
    ),
    "long text": (file(pair("sessionId", "é" * 30_000)), "session_id must be a UUID string or None, not 'éé"),
    "long encoding": (DECLARATION.format("x" * 60_000).encode() + file(), "declared encoding 'xxx"),
    "two roots": (file() + file(), "not well-formed"),
    "wrong root element": (b"<a/>", "unexpected element 'a'"),
    "wrong namespace": (file().replace(ARRAYS.encode(), b"urn:a"), "unexpected element"),
    "5,000 nested root elements": (b"<a>" * 5000, "unexpected element"),
    "key within a key": (
        file("<KeyValueOfstringanyType><Key><Key/></Key></KeyValueOfstringanyType>"),
        "unexpected element",
    ),
    "text between elements": (file("text"), "unexpected text 'text'"),
    "key without a value": (
        file("<KeyValueOfstringanyType><Key>a</Key></KeyValueOfstringanyType>"),
        "one Key followed",
    ),
    "value before the key": (
        file("<KeyValueOfstringanyType><Value/><Key>a</Key></KeyValueOfstringanyType>"),
        "one Key followed",
    ),
    "two values": (
        file("<KeyValueOfstringanyType><Key>a</Key><Value/><Value/></KeyValueOfstringanyType>"),
        "one Key followed",
    ),
    "empty pair": (file("<KeyValueOfstringanyType/>"), "one Key followed"),
    "duplicate key": (file(SESSION_ID, SESSION_ID), "duplicate key 'sessionId'"),
    "duplicate user id": (file(pair("userId", event_id(8))), "duplicate key 'userId'"),
    "duplicate unknown key": (file(pair("a", "1"), pair("a", "2")), "duplicate key 'a'"),
    "no user id": ((ROOT + SESSION_ID + END).encode(), "userId is missing"),
    "no pairs": ((ROOT + END).encode(), "userId is missing"),
    "null user id": (
        file().replace(b"i:type='x:string'", b"i:nil='true'").replace(USER.encode(), b""),
        "userId is missing",
    ),
    "null user id with text": (file().replace(b"i:type='x:string'", b"i:nil='true'"), "userId is null but has text"),
    "value without a type": (
        file().replace(b" i:type='x:string'", b""),
        "userId must be of XML Schema type string, not",
    ),
    "index of type long": (
        file(pair("sessionIndex", "3", "x:long")),
        "sessionIndex must be of XML Schema type int, not 'long'",
    ),
    "index of type string": (
        file(pair("sessionIndex", "3")),
        "sessionIndex must be of XML Schema type int, not 'string'",
    ),
    "type with an unbound prefix": (file(pair("sessionIndex", "3", "y:int")), "not '{}int'"),
    "type from another schema": (file(pair("sessionIndex", "3", "i:int")), f"not '{{{INSTANCE}}}int'"),
    "type without a prefix": (file(pair("sessionIndex", "3", "int")), f"not '{{{ARRAYS}}}int'"),
    "underscore in a number": (file(pair("sessionIndex", "1_000", "x:int")), "must be a whole number"),
    "plus sign": (file(pair("sessionIndex", "+5", "x:int")), "must be a whole number"),
    "spaces around a number": (file(pair("sessionIndex", " 7 ", "x:int")), "must be a whole number"),
    "leading zero": (file(pair("sessionIndex", "07", "x:int")), "must be a whole number"),
    "non-ASCII digits": (file(pair("sessionIndex", "\u0667", "x:int")), "must be a whole number"),
    "5,000 digits": (file(pair("sessionIndex", "9" * 5000, "x:int")), "must be a whole number"),
    "no digits": (file(pair("sessionIndex", "", "x:int")), "must be a whole number"),
    "negative index": (file(pair("sessionIndex", "-1", "x:int")), "session_index must be"),
    "2³¹": (file(pair("sessionIndex", "2147483648", "x:int")), "session_index must be"),
    "2³¹ events": (file(pair("eventIndex", "2147483648", "x:int")), "event_index must be"),
    "truncated UUID": (file(pair("sessionId", event_id(1)[:-1])), "session_id must be"),
    "upper-case user id": (file().replace(USER.encode(), b"A" * 16), "user_id must be"),
    "unknown storage mechanism": (file(pair("storageMechanism", "DISK")), "storage_mechanism must be"),
    "naive time": (
        file(pair("lastActivity", "2026-11-23T09:30:00", "x:dateTime")),
        "must be a dateTime with a time zone",
    ),
    "nonexistent day": (
        file(pair("lastActivity", "2026-02-30T09:30:00Z", "x:dateTime")),
        "must be a dateTime with a time zone",
    ),
    "nonexistent time zone": (
        file(pair("lastActivity", "2026-02-20T09:30:00+99:00", "x:dateTime")),
        "must be a dateTime with a time zone",
    ),
    "year 0": (file(pair("lastActivity", "0000-01-01T00:00:00Z", "x:dateTime")), "must be a dateTime with a time zone"),
    "before year 1": (file(pair("lastActivity", "0001-01-01T00:00:00+01:00", "x:dateTime")), "years 1 to 9999"),
    "not a boolean": (file(pair("background", "True", "x:boolean")), "must be a boolean, not 'True'"),
    "a number for a boolean": (file(pair("background", "1", "x:int")), "must be of XML Schema type boolean"),
    "not a time": (file(pair("lastActivity", "yesterday", "x:dateTime")), "must be a dateTime with a time zone"),
}

BAD_SESSION_ID = pair("sessionId", "-")  # detected only after everything before it has been parsed
BAD_SESSION_ID_MESSAGE = "session_id must be"


def unknown_pair(value: str, attributes: str = "") -> str:
    """Return a pair with an unknown key and a value whose type is missing or unknown."""
    return f"<KeyValueOfstringanyType><Key>newer</Key><Value {attributes}>{value}</Value></KeyValueOfstringanyType>"


def repeat(piece: str) -> str:
    """Repeat a piece until the result nearly fills a save file, replacing each # with the repetition's number."""
    pieces: list[str] = []
    size = 0
    while size < 64_000:
        pieces.append(piece.replace("#", f"{len(pieces):x}"))
        size += len(pieces[-1].encode())
    return "".join(pieces)


TEN_DEEP = "".join(f"<!ENTITY a{level + 1} '{f'&a{level};' * 10}'>" for level in range(9))
BIG_ENTITY = f"<!ENTITY b '{'x' * 30_000}'>"
DOCTYPE = "document type declaration"

HOSTILE |= {
    "billion laughs, ten deep": (
        file(pair("newer", "&a9;"), before=f"<!DOCTYPE a [<!ENTITY a0 'ha'>{TEN_DEEP}]>"),
        DOCTYPE,
    ),
    "billion laughs, below expat's threshold": (
        file(pair("newer", "&a5;"), before=f"<!DOCTYPE a [<!ENTITY a0 'ha'>{TEN_DEEP}]>"),
        DOCTYPE,
    ),
    "quadratic blow-up": (file(pair("newer", "&b;" * 9_000), before=f"<!DOCTYPE a [{BIG_ENTITY}]>"), DOCTYPE),
    "quadratic blow-up, below the threshold": (
        file(pair("newer", "&b;" * 250), before=f"<!DOCTYPE a [{BIG_ENTITY}]>"),
        DOCTYPE,
    ),
    "blow-up in an attribute": (
        file(unknown_pair("", f"b='{'&b;' * 9_000}'"), before=f"<!DOCTYPE a [{BIG_ENTITY}]>"),
        DOCTYPE,
    ),
    "blow-up through a parameter entity": (
        file(before=f"<!DOCTYPE a [{BIG_ENTITY.replace('b', '% b', 1)}{'%b;' * 9_000}]>"),
        DOCTYPE,
    ),
    "recursive entity": (file(pair("newer", "&e;"), before="<!DOCTYPE a [<!ENTITY e '&e;'>]>"), DOCTYPE),
    "external parameter entity": (
        file(before="<!DOCTYPE a [<!ENTITY % p SYSTEM 'http://127.0.0.1/p.dtd'>%p;]>"),
        DOCTYPE,
    ),
    "public DTD": (file(before="<!DOCTYPE a PUBLIC '-//W3C//DTD XHTML 1.0//EN' 'http://127.0.0.1/a.dtd'>"), DOCTYPE),
    "default attributes": (
        file(unknown_pair("<a/>" * 5_000), before=f"<!DOCTYPE a [<!ATTLIST a {repeat(' b# CDATA 1')[:20_000]}>]>"),
        DOCTYPE,
    ),
    "unclosed DTD": (b"<!DOCTYPE a [" + b"<!ENTITY a 'b'>" * 4_000, DOCTYPE),
    "6,000 attributes": (
        file(unknown_pair("", repeat(" a#=''")[:62_000].rpartition(" ")[0]), BAD_SESSION_ID),
        BAD_SESSION_ID_MESSAGE,
    ),
    "5,000 prefixed attributes": (
        file(unknown_pair("", repeat(" i:a#=''")[:62_000].rpartition(" ")[0]), BAD_SESSION_ID),
        BAD_SESSION_ID_MESSAGE,
    ),
    "attributes in a 96-byte namespace": (
        file(
            unknown_pair("", f"xmlns:q='{'u' * 96}'" + repeat(" q:a#=''")[:62_000].rpartition(" ")[0]), BAD_SESSION_ID
        ),
        BAD_SESSION_ID_MESSAGE,
    ),
    "long namespace in a short file": (
        file(
            unknown_pair("", f"xmlns:q='{'u' * 1_700}'" + repeat(" q:a#=''")[:1_300].rpartition(" ")[0]), BAD_SESSION_ID
        ),
        BAD_SESSION_ID_MESSAGE,
    ),
    "duplicate attribute": (file(unknown_pair("", "a='' a=''")), "not well-formed"),
    "duplicate attribute with two prefixes": (
        file(unknown_pair("", "xmlns:p='u' xmlns:q='u' p:a='' q:a=''")),
        "not well-formed",
    ),
    "4,000 namespaces": (
        file(unknown_pair("", repeat(" xmlns:a#='u'")[:62_000].rpartition(" ")[0]), BAD_SESSION_ID),
        BAD_SESSION_ID_MESSAGE,
    ),
    "a namespace for each element": (
        file(unknown_pair(repeat("<a xmlns='u#'/>")[:62_000].rpartition("<")[0]), BAD_SESSION_ID),
        BAD_SESSION_ID_MESSAGE,
    ),
    "8,000 names": (
        file(unknown_pair(repeat("<a#/>")[:62_000].rpartition("<")[0]), BAD_SESSION_ID),
        BAD_SESSION_ID_MESSAGE,
    ),
    "names in a 96-byte namespace": (
        file(unknown_pair(f"<b xmlns='{'u' * 96}'>{repeat('<a#/>')[:62_000].rpartition('<')[0]}</b>"), BAD_SESSION_ID),
        BAD_SESSION_ID_MESSAGE,
    ),
    "15,000 elements": (file(unknown_pair("<a/>" * 15_500), BAD_SESSION_ID), BAD_SESSION_ID_MESSAGE),
    "600 keys": (file(*(pair(f"k{number}", "") for number in range(600)), BAD_SESSION_ID), BAD_SESSION_ID_MESSAGE),
    "long key": (file(pair("k" * 60_000, ""), BAD_SESSION_ID), BAD_SESSION_ID_MESSAGE),
    "long name": (file(unknown_pair(f"<{'a' * 30_000}></{'a' * 30_000}>"), BAD_SESSION_ID), BAD_SESSION_ID_MESSAGE),
    "unclosed name": (file("<" + "a" * 60_000), "not well-formed"),
    "unclosed attribute": (file("<a b='" + "a" * 60_000), "not well-formed"),
    "unclosed comment": (file("<!--" + "- " * 30_000), "not well-formed"),
    "unclosed CDATA": (file(pair("newer", f"<![CDATA[{']>' * 30_000}")), "not well-formed"),
    "10,000 comments": (file("<!---->" * 9_000, BAD_SESSION_ID), BAD_SESSION_ID_MESSAGE),
    "text in 7,000 pieces": (file(pair("sessionId", "a<!---->" * 7_000)), BAD_SESSION_ID_MESSAGE),
    "CDATA in 4,000 pieces": (file(pair("sessionId", "<![CDATA[a]]>" * 4_700)), BAD_SESSION_ID_MESSAGE),
    "10,000 character references": (file(pair("sessionId", "&#65;" * 12_000)), BAD_SESSION_ID_MESSAGE),
    "character reference with 60,000 digits": (file(pair("sessionId", f"&#{'0' * 60_000}65;")), BAD_SESSION_ID_MESSAGE),
    "character beyond Unicode": (file(pair("newer", f"&#{'9' * 60_000};")), "not well-formed"),
    "surrogate": (file(pair("newer", "&#xD800;")), "not well-formed"),
    "surrogate in UTF-8": (file().replace(b"userId", b"user\xed\xa0\x80Id"), "is not valid UTF-8"),
    "overlong UTF-8": (file().replace(b"userId", b"userI\xc1\xa4"), "is not valid UTF-8"),
    "60,000 line breaks": (file("\r\n" * 30_000, BAD_SESSION_ID), BAD_SESSION_ID_MESSAGE),
    "xml:lang and xml:space attributes": (
        file(unknown_pair("<a xml:lang='e' xml:space='preserve'/>" * 1_600), BAD_SESSION_ID),
        BAD_SESSION_ID_MESSAGE,
    ),
    "xml prefix bound to another namespace": (file(unknown_pair("", "xmlns:xml='u'")), "not well-formed"),
    "unbound prefix": (file(unknown_pair("<q:a/>")), "not well-formed"),
    "XInclude": (
        file("<i:include xmlns:i='http://www.w3.org/2001/XInclude' href='file:///etc/passwd'/>"),
        "unexpected element",
    ),
    "terminal escapes": (file("\x9b31m"), "unexpected text '\\x9b31m'"),
    "60,000 fractional digits in a time": (
        file(pair("lastActivity", f"2026-11-23T09:30:00.{'1' * 60_000}Z", "x:dateTime")),
        "must be a dateTime with a time zone",
    ),
    "8,000 fragments that look like user ids": (b"userId</" * 8_000, "not well-formed"),
    "user id followed by 60,000 spaces": (b"userId</>" + b" " * 60_000, "not well-formed"),
}
