"""What is logged, and how. Configure it once, before anything else logs.

A log line says what happened, as an event with values. It never carries a token, a payload or a policy's data.
A server's lines are written by a thread (log_thread.py); a command's at once, in between its output.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import structlog

from insforge_realtime.config import LogSettings
from insforge_realtime.floods import Bounded, Floods, processor, say
from insforge_realtime.log_thread import ThreadedHandler

log = structlog.get_logger("insforge_realtime")


def configure(config: LogSettings) -> None:
    """Set up structlog, and send the standard library's loggers the same way. For commands."""
    _configure(config, logging.StreamHandler(sys.stderr))


@contextlib.contextmanager
def of_a_server(config: LogSettings) -> Iterator[None]:
    """Do the same for the life of a server: no line makes it wait, and at the end everything logged is written.

    Whatever else Python would write to standard error, also from within the event loop, becomes log lines.
    """
    handler = _threaded(config)
    _configure(config, handler)
    logging.captureWarnings(True)
    sys.unraisablehook = _tell_of_what_cannot_be_raised
    threading.excepthook = _tell_of_a_thread
    try:
        yield
    finally:
        handler.flush()


def _threaded(config: LogSettings) -> logging.Handler:
    try:
        return ThreadedHandler(sys.stderr, config.log_buffer_bytes, _lines_dropped)
    except (OSError, io.UnsupportedOperation):
        return logging.StreamHandler(sys.stderr)  # it was replaced by something that is not a file


def _lines_dropped(lines: int) -> logging.LogRecord:
    name, text = (
        "insforge_realtime.log",
        f"{lines} log lines dropped: standard error was not read, or could not be written",
    )
    return logging.LogRecord(name, logging.WARNING, "", 0, text, (), None)


def _tell_of_what_cannot_be_raised(raised: sys.UnraisableHookArgs) -> None:
    where = getattr(raised.object, "__qualname__", type(raised.object).__qualname__)
    log.error("an exception was ignored", where=where, exc_info=raised.exc_value or True)


def _tell_of_a_thread(raised: threading.ExceptHookArgs) -> None:
    name = raised.thread.name if raised.thread else None
    log.error("a thread has ended in an exception", thread=name, exc_info=raised.exc_value or True)


def tell_of_the_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception that nobody awaits, as the event loop's handler. The default one shows the arguments of callbacks,
    which may be tokens or payloads."""
    event = str(context.get("message")).partition("(")[0]
    task = context.get("task") or context.get("future")
    name = task.get_name() if isinstance(task, asyncio.Task) else None
    log.error(event, task=name, exc_info=context.get("exception"))


def _configure(config: LogSettings, handler: logging.Handler) -> None:
    floods = Floods(config.max_log_lines_per_second, say)
    renderer: structlog.typing.Processor
    if config.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        # The default formatter shows the values of local variables, and those may be tokens or payloads.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            processor(floods),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler.addFilter(Bounded(floods))
    atexit.register(floods.tell_all)
    exceptions = [structlog.processors.format_exc_info] if config.log_format == "json" else []
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *exceptions, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=config.log_level.upper(), force=True)
    logging.getLogger("uvicorn.access").disabled = True
    for noisy in ("uvicorn.error", "uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def use_logging_of_the_application(config: LogSettings) -> None:
    """Inside somebody else's server: log to the standard library's loggers, and configure none of them."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            processor(Floods(config.max_log_lines_per_second, say)),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
