"""What identifies an SQLite database, and ours among them (https://www.sqlite.org/fileformat2.html)."""

HEADER = b"SQLite format 3\0"
"""The first bytes of each database."""
MIN_BYTES = 512
"""The size of the smallest page, and so of the smallest database. SQLite treats some smaller files as empty ones."""
SESSIONS_ID = 0x436C5365
"""The application id of a database of `SqliteStore`: "ClSe"."""
STATES_ID = 0x436C5374
"""The application id of a database of `SqliteStates`: "ClSt"."""
