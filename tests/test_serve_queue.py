"""The queue alone: bounds, fairness, leaving, the end; no model, no network."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from serving import finished

from whisper_npu.serve.queue import Place, Queue
from whisper_npu.serve.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_places_are_bounded_and_a_client_gets_half_of_them() -> None:
    queue = Queue(4, 10)
    with queue.place("a"), queue.place("a"):
        with pytest.raises(Refusal, match="too many") as refused, queue.place("a"):
            pass
        assert refused.value.status == 429
        with queue.place("b"), queue.place("c"):
            assert queue.waiting == 4
            with pytest.raises(Refusal), queue.place("d"):
                pass
    assert queue.waiting == 0
    with queue.place("a"), queue.place("a"):
        pass
    queue.close()


def test_a_short_request_waits_for_a_window_of_a_long_one_not_for_all() -> None:
    queue, order = Queue(10, 10), []

    def windows(name: str, n: int) -> Iterator[str]:
        for i in range(n):
            order.append(name)
            time.sleep(0.005)
            yield f"{name}{i}"

    async def client(name: str, n: int) -> None:
        with queue.place(name) as place:
            async with queue.turn(place), aclosing(queue.steps(place, windows(name, n))) as steps:
                assert [step async for step in steps] == [f"{name}{i}" for i in range(n)]

    async def both() -> None:
        film = asyncio.create_task(client("film", 50))
        await asyncio.sleep(0.02)
        await client("voice", 1)
        after = order.index("voice")
        assert 0 < after < 40
        await film

    finished(both())
    queue.close()


def test_a_client_with_many_requests_holds_nobody_up() -> None:
    queue, began = Queue(100, 10), []
    gate = threading.Event()

    def windows(name: str) -> Iterator[str]:
        began.append(name)
        gate.wait()
        yield name

    async def client(name: str) -> None:
        with queue.place(name) as place:
            async with queue.turn(place), aclosing(queue.steps(place, windows(name))) as steps:
                async for _ in steps:
                    pass

    async def everybody() -> None:
        tasks = [asyncio.create_task(client("many")) for _ in range(20)]
        await asyncio.sleep(0.05)
        tasks.append(asyncio.create_task(client("one")))
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(*tasks)

    finished(everybody())
    assert began.index("one") == 1
    queue.close()


def test_who_leaves_stops_the_work_after_its_step() -> None:
    queue, taken, closed = Queue(10, 10), [], threading.Event()

    def windows() -> Iterator[int]:
        try:
            for i in range(1000):
                taken.append(i)
                yield i
        finally:
            closed.set()

    async def leave() -> None:
        with queue.place("a") as place:
            async with queue.turn(place), aclosing(queue.steps(place, windows())) as steps:
                async for step in steps:
                    if step == 2:
                        return

    finished(leave())
    assert closed.wait(5)
    assert len(taken) < 6
    assert queue.in_work == queue.waiting == 0
    queue.close()


def test_time_runs_out_while_waiting_and_while_working() -> None:
    queue, gate = Queue(10, 0.1), threading.Event()

    async def client(name: str) -> None:
        with queue.place(name) as place:
            async with queue.turn(place):
                await place.within(queue.run(gate.wait))

    async def both() -> None:
        ended = await asyncio.gather(client("a"), client("a"), return_exceptions=True)
        assert [type(error) for error in ended] == [TimeoutError, TimeoutError]

    finished(both())
    gate.set()
    assert queue.in_work == queue.waiting == 0
    queue.close()


def test_at_the_end_nobody_new_is_let_in() -> None:
    queue = Queue(10, 10)

    async def wait_in_line(place: Place) -> None:
        async with queue.turn(place):
            pass

    async def end() -> None:
        with queue.place("a") as first, queue.place("a") as second:
            async with queue.turn(first):
                waiting = asyncio.create_task(wait_in_line(second))
                await asyncio.sleep(0)
                queue.is_stopping = True
            with pytest.raises(Refusal, match="being stopped") as refused:
                await waiting
            assert refused.value.status == 503
        with pytest.raises(Refusal, match="being stopped"), queue.place("b"):
            pass

    finished(end())
    queue.close()
