"""``make fuzz``: coverage-guided fuzzing of the codec with atheris (libFuzzer). Accepts libFuzzer's arguments.

Given any bytes, `loads` must either return a snapshot that survives a round trip or raise `CorruptSaveFileError`. Any
other outcome ends the run and saves the bytes in ``build/fuzz``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

from event_ids import event_id

with atheris.instrument_imports(
    include=["client_session_persistence"]
):  # atheris cannot instrument modules that are already imported
    from client_session_persistence import CorruptSaveFileError, Snapshot, dumps, loads
    from client_session_persistence.codec import ARRAYS, FIELDS, INSTANCE, MAX_BYTES, SCHEMA, readable_user_id
    from hostile_bytes import HOSTILE

SAVE_FILES = Path(__file__).parent / "data" / "save-files"
BUILD = Path(__file__).parents[1] / "build" / "fuzz"
DICTIONARY = (
    ARRAYS,
    INSTANCE,
    SCHEMA,
    "KeyValueOfstringanyType",
    "Key",
    "Value",
    "xmlns",
    "i:nil",
    "i:type",
    "<!DOCTYPE",
    "<?xml",
)


def fuzz_one_input(data: bytes) -> None:
    """Load the bytes as a save file, and try to recover a user id from them."""
    if user_id := readable_user_id(data):
        Snapshot(user_id=user_id)
    try:
        snapshot = loads(data)
    except CorruptSaveFileError as error:
        if len(error.reason) > 201:
            raise AssertionError(len(error.reason)) from error
        return
    if loads(dumps(snapshot)) != snapshot:
        raise AssertionError(snapshot)


def main() -> None:
    """Write the seeds and the dictionary, then fuzz."""
    corpus, dictionary = BUILD / "corpus", BUILD / "dictionary"
    corpus.mkdir(parents=True, exist_ok=True)
    user = Snapshot(user_id=event_id(7))
    seeds = {path.stem: path.read_bytes() for path in SAVE_FILES.iterdir()}
    seeds |= {"user": dumps(user), "session": dumps(Snapshot(user_id=event_id(7), session_id=event_id(1)))}
    seeds |= {f"hostile-{number}": data for number, (data, _) in enumerate(HOSTILE.values())}
    for name, data in seeds.items():
        (corpus / name).write_bytes(data)
    dictionary.write_text("".join(f'"{word}"\n' for word in (*DICTIONARY, *FIELDS)), encoding="ascii")
    limits = [f"-max_len={MAX_BYTES + 1}", f"-dict={dictionary}", "-timeout=2", "-rss_limit_mb=1024"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={BUILD}/", *sys.argv[1:], str(corpus)], fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
