"""What is written to the log, and how. Call once, before anything else says something.

A log line says what happened, as an event with values. It never carries a token, a payload or a policy's data.
"""

from __future__ import annotations

import atexit
import logging
import sys

import structlog

from insforge_realtime.config import Config
from insforge_realtime.floods import Bounded, Floods, processor, say


def configure(config: Config) -> None:
    """Set up structlog, and send the standard library's loggers the same way."""
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
    handler = logging.StreamHandler(sys.stderr)
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


def use_logging_of_the_application(config: Config) -> None:
    """Inside somebody else's server: say what we say to the standard library's loggers, and configure none of them."""
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
