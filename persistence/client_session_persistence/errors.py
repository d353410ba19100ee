"""The error of a save file that can be read but not understood."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client_session_persistence.snapshot import Snapshot


class CorruptSaveFileError(ValueError):
    """A save file's bytes are not a save file.

    Attributes:
        reason: what is wrong, as one clause.
        path: the file, or ``None`` for bytes that came from no file.
        recovered: what could be rescued, from the backup or from what is still readable, or ``None``.

    """

    def __init__(self, reason: str, path: str | None = None, recovered: Snapshot | None = None) -> None:
        """Keep the facts; the message is made of file and reason."""
        super().__init__(reason, path, recovered)
        self.reason = reason
        self.path = path
        self.recovered = recovered

    def __str__(self) -> str:
        """Name file and reason."""
        return f"{self.path or 'save file'} is corrupt: {self.reason}"
