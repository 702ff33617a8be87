"""The log: lines of text or of JSON, each with the request it was written for; events are lines like any other."""

import json
import logging
import time

from lb.events import REQUEST_ID, Event

EVENTS = logging.getLogger("sluice.events")


class TextFormatter(logging.Formatter):
    """For people: time, level, who says it, what; and the request, where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the library's name
        """The line, before a traceback."""
        request_id = REQUEST_ID.get()
        return super().formatMessage(record) + (f" [{request_id}]" if request_id else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what a record has as `fields` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = REQUEST_ID.get()
        if request_id is not None:
            line["request_id"] = request_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up(log_format: str, level: str) -> None:
    """Everything that is logged goes to standard error from here on; of libraries what is at least a warning."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("sluice").setLevel(level.upper())


def log_event(event: Event) -> None:
    """The log has each event, whoever follows; a text line begins with its kind."""
    level = logging.getLevelNamesMapping()[event.level.upper()]
    EVENTS.log(level, "%s: %s", event.kind, event.text, extra={"fields": {"event": event.document()}})
