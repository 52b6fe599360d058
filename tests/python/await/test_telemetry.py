"""OpenTelemetry's spans and structlog's context variables are right on both sides of a wait, wherever that is."""

from __future__ import annotations

import asyncio
import functools

import fiberback
import pytest
from support import import_or_skip, only_fiberback

pytestmark = only_fiberback


async def portal(fn):
    return await fiberback.with_portal_run_sync(fn)


async def parked(fn):
    return fn()


WAYS = {
    "portal": (asyncio.run, portal),
    "run": (fiberback.run, parked),
    "parked": (asyncio.run, parked),
    "asyncio.to_thread": (asyncio.run, asyncio.to_thread),
    "fiberback.to_thread": (fiberback.run, fiberback.to_thread),
}
ways = pytest.mark.parametrize("way", list(WAYS.values()), ids=list(WAYS))


def of_tasks_that_interleave(way, body, names="abc"):
    """Calls `body(name)` in a task each, at the same time."""
    run, wait_for = way

    async def main():
        async def task(name):
            return await wait_for(functools.partial(body, name))

        return await asyncio.gather(*map(task, names))

    return run(main())


@ways
def test_spans_of_opentelemetry(way):
    """Those begun in the sync code are children of its own, in what it awaits and after that; nobody's else."""
    import_or_skip("opentelemetry.sdk")
    from opentelemetry import context, trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer(__name__)
    outside = trace.get_current_span()

    async def query(name, number):
        with tracer.start_as_current_span(f"{name} query {number}"):
            await asyncio.sleep(0.001)

    def body(name):
        with tracer.start_as_current_span(f"{name} outer") as outer:
            token = context.attach(context.set_value("name", name))
            try:
                for number in range(3):
                    fiberback.await_(query(name, number))
                    assert trace.get_current_span() is outer
                    assert context.get_value("name") == name
                with tracer.start_as_current_span(f"{name} inner") as inner:
                    fiberback.await_(query(name, 3))
                    assert trace.get_current_span() is inner
            finally:
                context.detach(token)
        return trace.get_current_span() is outside

    assert all(of_tasks_that_interleave(way, body))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert len(spans) == 3 * 6
    for name in "abc":
        outer, inner = spans[f"{name} outer"], spans[f"{name} inner"]
        assert outer.parent is None
        for child in [inner, *(spans[f"{name} query {number}"] for number in range(3))]:
            assert child.parent.span_id == outer.context.span_id
        assert spans[f"{name} query 3"].parent.span_id == inner.context.span_id


@ways
def test_context_variables_of_structlog(way):
    structlog = import_or_skip("structlog")
    lines = []

    def note(logger, method, event):
        lines.append(event)
        raise structlog.DropEvent

    logger = structlog.wrap_logger(None, processors=[structlog.contextvars.merge_contextvars, note])

    async def query(number):
        logger.info("in", number=number)
        with structlog.contextvars.bound_contextvars(query=number):
            await asyncio.sleep(0.001)
            logger.info("awaited")

    def body(name):
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request=name)
        for number in range(3):
            with structlog.contextvars.bound_contextvars(step=number):
                fiberback.await_(query(number))
                logger.info("after")

    of_tasks_that_interleave(way, body)
    for name in "abc":
        own = [line for line in lines if line["request"] == name]
        expected = []
        for number in range(3):
            both = {"request": name, "step": number}
            expected.append({**both, "event": "in", "number": number})
            expected.append({**both, "event": "awaited", "query": number})
            expected.append({**both, "event": "after"})
        assert own == expected
    assert len(lines) == 3 * 9
