"""AsyncioScheduler: ticks run on the event loop, without threads, and do not keep sessions or loops alive."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
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

WAIT_SECONDS = 20.0


def run(main: Awaitable[None], *, debug: bool = True) -> None:
    """Run a coroutine in a new event loop, with a time limit."""

    async def with_timeout() -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            await main

    asyncio.run(with_timeout(), debug=debug)


class Target:
    """A target that records its ticks and lets a test wait for them."""

    def __init__(self, interval: float = 0.002) -> None:
        """Set the interval between ticks."""
        self.check_interval = interval
        self.ticked = asyncio.Event()
        self.threads: set[int] = set()
        self.on_tick: Callable[[], object] = int

    def tick(self) -> None:
        """Record the calling thread and run the hook."""
        self.threads.add(threading.get_ident())
        self.ticked.set()
        self.on_tick()

    async def wait(self, ticks: int = 1) -> None:
        """Wait for this many more ticks."""
        for _ in range(ticks):
            self.ticked.clear()
            await self.ticked.wait()


def block_thread(seconds: float) -> None:
    """Block the calling thread."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_sessions_expire_on_the_loop() -> None:
    """An idle session ends on time, on the loop's thread, without starting a thread."""

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


def test_target_is_ticked_on_the_loop_until_stopped() -> None:
    """A target is ticked at its interval, only on the loop's thread, until it is stopped."""

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


def test_a_thousand_sessions_do_not_cause_slow_callbacks(slow_callbacks: list[str]) -> None:
    """When 1,000 sessions with callbacks expire in one round, none of the loop's callbacks are slow."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        all_ended, ended = loop.create_future(), 0

        def end(_: SessionSummary) -> None:
            nonlocal ended
            ended += 1
            block_thread(0.0002)
            if ended == 1_000:
                all_ended.set_result(None)

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
        await all_ended

    run(main())
    assert slow_callbacks == []


def test_long_round_yields_to_the_loop() -> None:
    """Between slow ticks, the loop runs other work."""

    async def main() -> None:
        scheduler = AsyncioScheduler()
        turns = 0
        turns_at_tick: list[int] = []

        def slow_tick() -> None:
            block_thread(0.006)
            turns_at_tick.append(turns)

        targets = [Target(0.05) for _ in range(10)]
        for target in targets:
            target.on_tick = slow_tick
            scheduler.start(target, 0.0)
        while len(turns_at_tick) < 10:
            turns += 1
            await asyncio.sleep(0)
        assert len(set(turns_at_tick)) == 10

    run(main())


def test_session_can_be_started_from_another_thread() -> None:
    """A target started in a worker thread is ticked on the loop immediately, even if the loop is idle."""

    async def main() -> None:
        scheduler, target = AsyncioScheduler(), Target()
        waiting = asyncio.create_task(target.wait())
        await asyncio.to_thread(scheduler.start, target, 0.0)
        await waiting
        assert target.threads == {threading.get_ident()}

    run(main())


@pytest.mark.usefixtures("fast_thread_switching")
def test_concurrent_starts_and_stops_are_not_lost() -> None:
    """When many threads start and stop targets concurrently, the last call for each target wins."""

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


def test_targets_started_before_the_loop_wait_for_it() -> None:
    """A target started before ``asyncio.run`` is ticked once `attach` is called or another target starts."""
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


def test_next_loop_takes_over_from_a_closed_loop() -> None:
    """Targets can be started and stopped between two loops, and the second loop ticks the first loop's targets."""
    scheduler, first_target, started_between, stopped = AsyncioScheduler(), Target(), Target(), Target()

    async def first() -> None:
        scheduler.start(first_target, 0.0)
        scheduler.start(stopped, 0.0)
        await first_target.wait()

    async def second() -> None:
        first_target.ticked, started_between.ticked = asyncio.Event(), asyncio.Event()
        scheduler.attach()
        stopped.threads.clear()
        await asyncio.gather(first_target.wait(2), started_between.wait(2))
        assert stopped.threads == set()

    run(first())
    scheduler.start(started_between, 0.0)
    scheduler.stop(stopped)
    run(second())


def test_previous_loop_does_not_tick_when_it_runs_again() -> None:
    """After a scheduler has moved to another loop, callbacks still queued on the first loop do nothing."""
    scheduler, target, other = AsyncioScheduler(), Target(), Target()
    with asyncio.Runner() as first, asyncio.Runner() as second:

        async def start() -> None:
            scheduler.start(target, 0.0)
            await target.wait()

        async def attach() -> None:
            scheduler.attach()

        first.run(start())
        scheduler.start(other, 0.0)  # wakes the first loop, which is not running
        second.run(attach())
        target.threads.clear()
        first.run(asyncio.sleep(0.05))
        assert target.threads == other.threads == set()


def test_scheduler_stays_on_its_running_loop() -> None:
    """While its loop runs, a scheduler uses only that loop, even for a target started on another loop."""

    async def main() -> None:
        scheduler, target, other = AsyncioScheduler(), Target(), Target()
        scheduler.start(target, 0.0)

        async def on_another_loop() -> None:
            scheduler.start(other, 0.0)

        await asyncio.to_thread(asyncio.run, on_another_loop())
        await asyncio.gather(target.wait(2), other.wait(2))
        assert other.threads == target.threads == {threading.get_ident()}

    run(main())


def test_scheduler_does_not_keep_sessions_or_loops_alive() -> None:
    """A dropped session is freed without garbage collection, and a finished loop can be collected."""
    gc.collect()
    gc.disable()
    try:
        scheduler = AsyncioScheduler()
        loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

        async def main() -> None:
            loops.append(weakref.ref(asyncio.get_running_loop()))
            target = Target()
            scheduler.start(target, 0.0)
            await target.wait(2)
            session = ClientSession(store=MemoryStore(), scheduler=scheduler)
            session.get_session_context(event_id(1))
            dropped = weakref.ref(session)
            del session
            assert dropped() is None

        asyncio.run(main())
    finally:
        gc.enable()
    gc.collect()
    assert loops[0]() is None


def test_scheduler_is_collected_with_its_targets() -> None:
    """If no loop ever runs, a scheduler and its targets can be garbage-collected once they are dropped."""
    scheduler, target = AsyncioScheduler(), Target()
    scheduler.start(target, 0.0)
    dropped = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert dropped() is None


def test_canceling_every_task_does_not_stop_ticks() -> None:
    """Ticks continue after a program cancels all of its tasks, because the scheduler does not run in a task."""

    async def main() -> None:
        scheduler, target = AsyncioScheduler(), Target()
        scheduler.start(target, 0.0)
        await target.wait()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        task = asyncio.create_task(asyncio.sleep(WAIT_SECONDS))
        await asyncio.sleep(0)
        task.cancel()
        await target.wait(2)

    run(main())


def test_ticks_do_not_see_the_callers_context_variables() -> None:
    """Ticks cannot see a context variable set by the code that started the target, and do not keep it alive."""
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")

    async def main() -> None:
        scheduler, target = AsyncioScheduler(), Target()
        seen: set[object] = set()
        target.on_tick = lambda: seen.add(variable.get(None))
        request = asyncio.Event()
        request_ref = weakref.ref(request)

        async def handle(request: asyncio.Event) -> None:
            variable.set(request)
            scheduler.start(target, 0.0)
            await target.wait()

        await asyncio.create_task(handle(request))
        del request
        await target.wait(2)
        gc.collect()
        assert seen == {None}
        assert request_ref() is None

    run(main())


def test_failing_tick_is_logged_and_other_targets_continue(caplog: pytest.LogCaptureFixture) -> None:
    """A target that raises does not stop the loop's ticks."""

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


def test_tick_that_stops_the_loop_does_not_stop_other_ticks() -> None:
    """If a tick stops the loop with KeyboardInterrupt, ticks continue when the loop runs again."""
    loop = asyncio.new_event_loop()
    try:
        targets = [Target(), Target()]

        async def begin() -> AsyncioScheduler:  # a new scheduler uses the running loop
            scheduler = AsyncioScheduler()
            for target in targets:
                scheduler.start(target, 0.0)
            return scheduler

        scheduler = loop.run_until_complete(begin())

        def interrupt() -> None:
            targets[0].on_tick = int
            raise KeyboardInterrupt

        targets[0].on_tick = interrupt
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()

        async def continue_ticking() -> None:
            async with asyncio.timeout(WAIT_SECONDS):
                await asyncio.gather(*(target.wait(2) for target in targets))

        loop.run_until_complete(continue_ticking())
        del scheduler
    finally:
        loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_is_ticked_on_its_own_loop() -> None:
    """After a fork inside a running loop, the child's ticks run on a new loop, and the parent's ticks continue."""
    listeners: list[Callable[[], object]] = []

    async def in_child(session: ClientSession, scheduler: AsyncioScheduler) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        scheduler.attach()
        session.get_session_context(event_id(2))
        listeners.append(lambda: ended.set_result(None))  # a future that belongs to the child's loop
        async with asyncio.timeout(WAIT_SECONDS):
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
        with scheduler._updating:  # noqa: SLF001  # as if another thread were changing the schedule
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
