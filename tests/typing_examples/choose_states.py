"""Stores for visitors' states with blocking clients and clients for asyncio, as type checkers see them."""

from __future__ import annotations

from typing import Any, assert_type

import psycopg
import psycopg_pool
import redis
import redis.asyncio
import redis.cluster
import valkey.asyncio

from client_session_persistence import (
    AsyncClient,
    AsyncStateStore,
    MemoryStates,
    PostgresStates,
    ReadResult,
    RedisStates,
    SqliteStates,
    StateStore,
    SwapResult,
    SyncClient,
)

blocking: list[StateStore] = [
    MemoryStates(),
    SqliteStates("states.db"),
    RedisStates(redis.Redis()),
    RedisStates(redis.cluster.RedisCluster()),
    PostgresStates(psycopg.connect()),
    PostgresStates(psycopg_pool.ConnectionPool()),
]
assert_type(blocking[0].read("key"), ReadResult)
assert_type(blocking[0].swap("key", None, b"new", keep=60), SwapResult)
assert_type(RedisStates(redis.Redis()), RedisStates[SyncClient])
assert_type(PostgresStates(psycopg.connect()).purge(), int)


async def run(connection: psycopg.AsyncConnection[Any]) -> None:
    """Use clients for asyncio."""
    asynchronous: list[AsyncStateStore] = [
        RedisStates(redis.asyncio.Redis()),
        RedisStates(valkey.asyncio.Valkey()),
        PostgresStates(connection),
        PostgresStates(psycopg_pool.AsyncConnectionPool()),
    ]
    assert_type(await asynchronous[0].read("key"), ReadResult)
    assert_type(RedisStates(redis.asyncio.Redis()), RedisStates[AsyncClient])
    assert_type(await PostgresStates(connection).purge(), int)


def annotate(states: PostgresStates[SyncClient], async_states: PostgresStates[AsyncClient]) -> StateStore:
    """Return the store whose methods do not return awaitables."""
    return async_states or states  # type: ignore[return-value]


RedisStates("redis://localhost")  # type: ignore[call-overload]
PostgresStates("postgresql://localhost")  # type: ignore[call-overload]
