"""Sessions on an asyncio loop: ticked there and by no thread, a moment at a time, and nothing is kept alive."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

import pytest

from client_session import ClientSession
from client_session.ticking.asyncio import AsyncioScheduler
from client_session_persistence import MemoryStore
from event_ids import event_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from client_session import SessionSummary

PATIENCE = 20.0


def run(main: Awaitable[None], *, debug: bool = True) -> None:
    """Run a program on a loop of its own, within the test's patience."""

    async def patiently() -> None:
        async with asyncio.timeout(PATIENCE):
            await main

    asyncio.run(patiently(), debug=debug)


class Target:
    """Something that is ticked, and can be waited for."""

    def __init__(self, interval: float = 0.002) -> None:
        """Tick at this interval."""
        self.check_interval = interval
        self.ticked = asyncio.Event()
        self.threads: set[int] = set()
        self.on_tick: Callable[[], object] = int

    def tick(self) -> None:
        """Note where it was called."""
        self.threads.add(threading.get_ident())
        self.ticked.set()
        self.on_tick()

    async def wait(self, ticks: int = 1) -> None:
        """Wait for further ticks."""
        for _ in range(ticks):
            self.ticked.clear()
            await self.ticked.wait()


def busy_for(seconds: float) -> None:
    """Keep the loop from going on."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_sessions_expire_on_the_loop() -> None:
    """A session that nothing happens to ends at its time, told on the loop's thread, and no thread is started."""

    async def main() -> None:
        ended: asyncio.Future[SessionSummary] = asyncio.get_running_loop().create_future()
        before = threading.active_count()
        session = ClientSession(
            store=MemoryStore(),
            foreground_timeout=0.02,
            check_interval=0.005,
            scheduler=AsyncioScheduler(),
            on_session_end=ended.set_result,
        )
        session.get_session_context(event_id(1))
        assert (await ended).event_count == 1
        assert threading.active_count() == before
        session.close()

    run(main())


def test_ticks_come_on_the_loop_until_stopped() -> None:
    """A target is ticked at its interval, on the loop's thread alone, and not once it is stopped."""

    async def main() -> None:
        scheduler, target, other = AsyncioScheduler(), Target(), Target()
        scheduler.start(target, 0.0)
        scheduler.start(other, 0.0)
        await target.wait(5)
        assert target.threads == {threading.get_ident()}
        scheduler.stop(target)
        scheduler.stop(target)
        target.ticked.clear()
        await other.wait(3)
        assert not target.ticked.is_set()

    run(main())


def test_a_thousand_sessions_make_no_slow_callback(caplog: pytest.LogCaptureFixture) -> None:
    """Of 1,000 sessions that all expire in one round, with callbacks to make, the loop's debug log calls none slow."""
    caplog.set_level(logging.WARNING, "asyncio")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        everybody, ended = loop.create_future(), 0

        def end(_: SessionSummary) -> None:
            nonlocal ended
            ended += 1
            busy_for(0.0002)
            if ended == 1_000:
                everybody.set_result(None)

        scheduler = AsyncioScheduler()
        sessions = []
        for _ in range(1_000):
            session = ClientSession(
                store=MemoryStore(),
                foreground_timeout=0.001,
                check_interval=0.5,
                scheduler=scheduler,
                on_session_end=end,
            )
            session.get_session_context(event_id(1))
            sessions.append(session)
            await asyncio.sleep(0)
        await everybody

    run(main())
    assert [record.getMessage() for record in caplog.records] == []


def test_a_long_round_lets_the_loop_go_on() -> None:
    """Between ticks that take their time, the loop does what else it has to do."""

    async def main() -> None:
        scheduler = AsyncioScheduler()
        turns = 0
        between: list[int] = []

        def take_long() -> None:
            busy_for(0.006)
            between.append(turns)

        targets = [Target(0.05) for _ in range(10)]
        for target in targets:
            target.on_tick = take_long
            scheduler.start(target, 0.0)
        while len(between) < 10:
            turns += 1
            await asyncio.sleep(0)
        assert len(set(between)) == 10

    run(main())


def test_a_session_may_be_started_from_another_thread() -> None:
    """What is tracked in a worker thread is ticked on the loop all the same, and at once, also on a loop that waits."""

    async def main() -> None:
        scheduler, target = AsyncioScheduler(), Target()
        waiting = asyncio.create_task(target.wait())
        await asyncio.to_thread(scheduler.start, target, 0.0)
        await waiting
        assert target.threads == {threading.get_ident()}

    run(main())


def test_many_threads_start_and_stop_at_once(switching_fast: None) -> None:  # noqa: ARG001  # a setting
    """No wish of any thread is lost: who was started last is ticked, who was stopped last is not."""

    async def main() -> None:
        scheduler = AsyncioScheduler()
        targets = [Target() for _ in range(8)]

        def toggle(target: Target) -> None:
            for _ in range(200):
                scheduler.stop(target)
                scheduler.start(target, 0.0)

        await asyncio.gather(*(asyncio.to_thread(toggle, target) for target in targets))
        await asyncio.gather(*(target.wait(2) for target in targets))
        for target in targets[1:]:
            scheduler.stop(target)
            target.ticked.clear()
        await targets[0].wait(3)
        assert not any(target.ticked.is_set() for target in targets[1:])

    run(main())


def test_before_the_loop_runs_sessions_wait_for_it() -> None:
    """A session constructed before ``asyncio.run`` is ticked from `attach` on, or from the next session's start."""
    for begin in (AsyncioScheduler.attach, lambda scheduler: scheduler.start(Target(), 0.0)):
        scheduler, target = AsyncioScheduler(), Target()
        scheduler.start(target, 0.0)

        async def main(
            scheduler: AsyncioScheduler = scheduler,
            target: Target = target,
            begin: Callable[[AsyncioScheduler], object] = begin,
        ) -> None:
            begin(scheduler)
            await target.wait(2)

        run(main())


def test_a_closed_loop_is_replaced_by_the_next() -> None:
    """Between two loops sessions start and stop without error, and the second loop ticks those of the first."""
    scheduler, old, between, stopped = AsyncioScheduler(), Target(), Target(), Target()

    async def first() -> None:
        scheduler.start(old, 0.0)
        scheduler.start(stopped, 0.0)
        await old.wait()

    async def second() -> None:
        old.ticked, between.ticked = asyncio.Event(), asyncio.Event()
        scheduler.attach()
        stopped.threads.clear()
        await asyncio.gather(old.wait(2), between.wait(2))
        assert stopped.threads == set()

    run(first())
    scheduler.start(between, 0.0)
    scheduler.stop(stopped)
    run(second())


def test_a_second_loop_leaves_the_sessions_to_the_first() -> None:
    """While its loop runs, a scheduler stays there, though a session is started on another."""

    async def main() -> None:
        scheduler, target, other = AsyncioScheduler(), Target(), Target()
        scheduler.start(target, 0.0)

        async def elsewhere() -> None:
            scheduler.start(other, 0.0)

        await asyncio.to_thread(asyncio.run, elsewhere())
        await asyncio.gather(target.wait(2), other.wait(2))
        assert other.threads == target.threads == {threading.get_ident()}

    run(main())


def test_nothing_keeps_a_dropped_session_or_the_loop_alive() -> None:
    """A session that is dropped is collected without a pass of the garbage collector, and a loop that ended as well."""
    gc.collect()
    gc.disable()
    try:
        kept = AsyncioScheduler()
        loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

        async def main() -> None:
            loops.append(weakref.ref(asyncio.get_running_loop()))
            target = Target()
            kept.start(target, 0.0)
            await target.wait(2)
            session = ClientSession(store=MemoryStore(), scheduler=kept)
            session.get_session_context(event_id(1))
            dropped = weakref.ref(session)
            del session
            assert dropped() is None

        asyncio.run(main())
    finally:
        gc.enable()
    gc.collect()
    assert loops[0]() is None


def test_the_scheduler_itself_is_not_kept_by_its_sessions_references() -> None:
    """A scheduler that is dropped with its sessions before any loop runs is collected."""
    scheduler, target = AsyncioScheduler(), Target()
    scheduler.start(target, 0.0)
    dropped = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert dropped() is None


def test_cancelling_every_task_stops_no_tick() -> None:
    """A program that cancels all of its tasks goes on being ticked: the scheduler has none."""

    async def main() -> None:
        scheduler, target = AsyncioScheduler(), Target()
        scheduler.start(target, 0.0)
        await target.wait()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        victim = asyncio.create_task(asyncio.sleep(PATIENCE))
        await asyncio.sleep(0)
        victim.cancel()
        await target.wait(2)

    run(main())


def test_ticks_see_no_variables_of_whoever_started_them() -> None:
    """A context variable that was set where a session was started is neither seen by its ticks nor kept by them."""
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")

    async def main() -> None:
        scheduler, target = AsyncioScheduler(), Target()
        seen: set[object] = set()
        target.on_tick = lambda: seen.add(variable.get(None))
        request = asyncio.Event()
        gone = weakref.ref(request)

        async def handle(request: asyncio.Event) -> None:
            variable.set(request)
            scheduler.start(target, 0.0)
            await target.wait()

        await asyncio.create_task(handle(request))
        del request
        await target.wait(2)
        gc.collect()
        assert seen == {None}
        assert gone() is None

    run(main())


def test_a_failing_tick_is_logged_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """One bad target does not stop the loop's ticks."""

    async def main() -> None:
        scheduler, bad, good = AsyncioScheduler(), Target(), Target()

        def fail() -> None:
            message = "broken"
            raise RuntimeError(message)

        bad.on_tick = fail
        scheduler.start(bad, 0.0)
        scheduler.start(good, 0.0)
        await asyncio.gather(bad.wait(2), good.wait(3))

    run(main())
    assert {str(record.exc_info[1]) for record in caplog.records if record.exc_info} == {"broken"}


def test_a_tick_that_leaves_the_loop_stops_no_other() -> None:
    """After a tick that ended the program's run, a loop that runs on goes on ticking."""
    loop = asyncio.new_event_loop()
    try:
        targets = [Target(), Target()]

        async def begin() -> AsyncioScheduler:  # on the loop, which it needs
            scheduler = AsyncioScheduler()
            for target in targets:
                scheduler.start(target, 0.0)
            return scheduler

        scheduler = loop.run_until_complete(begin())

        def leave() -> None:
            targets[0].on_tick = int
            raise KeyboardInterrupt

        targets[0].on_tick = leave
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()

        async def go_on() -> None:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(target.wait(2) for target in targets))

        loop.run_until_complete(go_on())
        del scheduler
    finally:
        loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system with fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_ticks_on_a_loop_of_its_own() -> None:
    """A child that is forked on the loop has its session ticked on a loop of its own; the parent's ticks go on."""
    listeners: list[Callable[[], object]] = []

    async def in_child(session: ClientSession, scheduler: AsyncioScheduler) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        scheduler.attach()
        session.get_session_context(event_id(2))
        listeners.append(lambda: ended.set_result(None))  # a future of the child's own loop
        async with asyncio.timeout(PATIENCE):
            await ended

    async def main() -> None:
        scheduler, target = AsyncioScheduler(), Target()
        session = ClientSession(
            store=MemoryStore(),
            foreground_timeout=0.01,
            check_interval=0.002,
            scheduler=scheduler,
            on_session_end=lambda _: [listener() for listener in listeners],
        )
        scheduler.start(target, 0.0)
        with scheduler._updating:  # noqa: SLF001  # as if another thread were changing the rounds just now
            child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                asyncio.run(in_child(session, scheduler))
                status = 0
            os._exit(status)
        await target.wait(2)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert status == 0
        await target.wait(2)
        session.close()

    run(main())
