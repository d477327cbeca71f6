"""What fails together leaves its parent as it was, on every Python that we run on."""

from __future__ import annotations

import asyncio

import pytest

from mailpoller.core.tasks import TaskGroup


async def fails(after: int = 1) -> None:
    for _ in range(after):
        await asyncio.sleep(0)
    raise ValueError("a child")


def asked() -> int:
    """Cancel requests that are outstanding for this task."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


@pytest.mark.parametrize("body", [0.0, 1.0], ids=["at-the-end", "in-the-block"])
async def test_child_that_fails_leaves_no_cancel_request_and_deadlines_that_work(body: float) -> None:
    for _ in range(3):
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as group:
                group.create_task(fails())
                group.create_task(asyncio.sleep(60))
                await asyncio.sleep(body)
        assert asked() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)


async def test_several_that_fail_at_once_are_all_told() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            group.create_task(fails())
            group.create_task(fails())
    assert len(caught.value.exceptions) == 2
    assert asked() == 0


async def test_block_that_fails_cancels_its_children_and_is_told() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            child = group.create_task(asyncio.sleep(60))
            await asyncio.sleep(0)
            raise KeyError("the block")
    assert isinstance(caught.value.exceptions[0], KeyError)
    assert (child.cancelled(), asked()) == (True, 0)


async def test_child_that_begins_another_one_is_waited_for_with_it() -> None:
    done = []

    async def late() -> None:
        await asyncio.sleep(0.01)
        done.append("late")

    async with TaskGroup() as group:

        async def first() -> None:
            await asyncio.sleep(0)
            group.create_task(late())

        group.create_task(first())
    assert done == ["late"]


async def test_cancellation_from_outside_reaches_the_children_and_goes_on() -> None:
    children: list[asyncio.Task[None]] = []

    async def parent() -> None:
        async with TaskGroup() as group:
            children.append(group.create_task(asyncio.sleep(60)))

    task = asyncio.create_task(parent())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children[0].cancelled()


async def test_deadline_around_a_group_is_a_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
    assert asked() == 0
