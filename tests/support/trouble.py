"""Ways to bring the store of a running service into trouble, and its health as callers see it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.service import Service

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def locked(database: Path) -> AsyncIterator[None]:
    """Another program holds the lock for writing."""
    with closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as connection:
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def tell_writer(running: Service, pragma: str) -> None:
    """Set a pragma of the connection that writes; not in a transaction of its own, where some have no effect."""
    writer: Any = running.app.store
    await writer._writer._connection.execute(f"PRAGMA {pragma}")


@asynccontextmanager
async def a_lock(running: Service, database: Path) -> AsyncIterator[None]:
    async with locked(database):
        yield


@asynccontextmanager
async def read_only(running: Service, database: Path) -> AsyncIterator[None]:
    await tell_writer(running, "query_only = ON")
    yield
    await tell_writer(running, "query_only = OFF")


@asynccontextmanager
async def full(running: Service, database: Path) -> AsyncIterator[None]:
    await tell_writer(running, "max_page_count = 1")  # as many as there are
    yield
    await tell_writer(running, "max_page_count = 1073741823")


async def status_of(channel: grpc.aio.Channel) -> int:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    return int(answer.status)


async def health_turns(channel: grpc.aio.Channel, wanted: int) -> None:
    async with asyncio.timeout(20):
        while await status_of(channel) != wanted:
            await asyncio.sleep(0.01)
