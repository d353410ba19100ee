"""Calls that fail, and what their errors may say."""

from __future__ import annotations

import contextlib
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from client_session_persistence import StoreError
from engines.servers import START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SECONDS = 15.0
"""The longest that a call may take here, on a busy machine. On an idle one, it takes a second or two."""


def failure_of(call: Callable[[], object], *secrets: str) -> OSError | StoreError:
    """Return the error of a call, after checking that it ended soon, and that neither it nor its traceback say secrets.

    A secret in quotes may be in the lines of code that the traceback shows.
    """
    start = time.monotonic()
    with pytest.raises((OSError, StoreError)) as caught:
        call()
    assert time.monotonic() - start < MAX_SECONDS
    printed = "".join(traceback.format_exception(caught.value))
    for secret in secrets:
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value)
        assert secret not in printed.replace(f'"{secret}"', "")
    assert isinstance(caught.value, OSError | StoreError)
    return caught.value


def retried(call: Callable[[], Any]) -> Any:  # noqa: ANN401  # what the call returns
    """Return the result of a call that is repeated while it fails as it may."""
    until = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError, StoreError):
            return call()
        assert time.monotonic() < until
