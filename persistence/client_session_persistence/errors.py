"""The error for a save file that can be read but not parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client_session_persistence.snapshot import Snapshot


class CorruptSaveFileError(ValueError):
    """A file or its bytes are not a valid save file.

    Attributes:
        reason: what is wrong.
        path: the file, or ``None`` if the bytes did not come from a file.
        recovered: the snapshot recovered from the backup or from what is still readable, or ``None``.

    """

    def __init__(self, reason: str, path: str | None = None, recovered: Snapshot | None = None) -> None:
        """Store the attributes."""
        super().__init__(reason, path, recovered)
        self.reason = reason
        self.path = path
        self.recovered = recovered

    def __str__(self) -> str:
        """Return the file and the reason."""
        return f"{self.path or 'save file'} is corrupt: {self.reason}"
