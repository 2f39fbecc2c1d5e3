"""Background work is held, told of when it fails, and gone at the end."""

from __future__ import annotations

import asyncio
import gc

from gateway.errands import Errands


def test_work_that_nobody_else_holds_goes_on() -> None:
    async def story() -> None:
        done: list[int] = []

        async def work() -> None:
            await asyncio.sleep(0)
            gc.collect()
            done.append(1)

        errands = Errands(lambda error: None)
        errands.start(work())
        await asyncio.sleep(0.01)
        assert done == [1]
        await errands.end()

    asyncio.run(story())


def test_a_failure_is_told_and_a_cancellation_is_none() -> None:
    async def story() -> None:
        told: list[BaseException] = []
        errands = Errands(told.append)

        async def fails() -> None:
            raise ValueError("broken")

        errands.start(fails())
        errands.start(asyncio.sleep(3600))
        await asyncio.sleep(0.01)
        await errands.end()
        assert [str(error) for error in told] == ["broken"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(story())
