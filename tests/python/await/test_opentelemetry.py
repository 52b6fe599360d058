"""OpenTelemetry's context follows a task through `await_`, and no other task sees it."""

from __future__ import annotations

import asyncio

import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


@pytest.mark.parametrize("how", ["run", "parked", "thread"])
def test_the_current_span_across_await_(fb, how):
    trace = import_or_skip("opentelemetry.trace")
    context = import_or_skip("opentelemetry.context")
    baggage = import_or_skip("opentelemetry.baggage")

    def span(number):
        of = trace.SpanContext(number, number, is_remote=False)
        return trace.use_span(trace.NonRecordingSpan(of))

    def current():
        return trace.get_current_span().get_span_context().span_id, baggage.get_baggage("who")

    async def inner(number):
        for _ in range(3):
            assert current() == (number, number)
            await asyncio.sleep(0)
        return current()

    def sync(number):
        token = context.attach(baggage.set_baggage("who", number))
        try:
            with span(number):
                assert fb.await_(inner(number)) == (number, number)
                # Below it, another span that ends with the wait in it.
                with span(100 + number):
                    fb.await_(asyncio.sleep(0))
                    assert current() == (100 + number, number)
                assert current() == (number, number)
                return fb.await_(inner(number))
        finally:
            context.detach(token)

    async def task(number):
        if how == "thread":
            return await fb.to_thread(sync, number)
        found = sync(number)
        assert current() == (0, None)
        return found

    async def main():
        tasks = [asyncio.create_task(task(number)) for number in range(1, 6)]
        assert await asyncio.gather(*tasks) == [(number, number) for number in range(1, 6)]
        assert current() == (0, None)

    (fb.run if how == "run" else asyncio.run)(main())
