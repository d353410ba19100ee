"""The ``client-session`` command, also available as ``python -m client_session``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command-line interface; if a package is missing, say how to install it."""
    try:
        from client_session.cli import client_session  # noqa: PLC0415  # click and rich come with the extra "cli"
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in {"click", "rich"}:
            raise
        sys.exit(f"client-session needs {missing}: pip install 'client-session[cli]'")
    client_session(prog_name="client-session")


if __name__ == "__main__":
    main()
