"""Parameter types for names that the daemon knows; shell completion asks the daemon for them."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from lb.cli.credentials import credentials_of
from lb.cli.session import Named, Session
from lb.errors import SluiceError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_PATIENCE_SECONDS = 1.0
"""Who pressed Tab does not wait longer for a daemon."""


class Known(Named):
    """The name of something; path is where the daemon lists such things, and key what each is called by."""

    def __init__(self, path: str | Callable[[click.Context], str | None], key: str = "name") -> None:
        self._path, self._key = path, key

    def shell_complete(
        self, context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        """Those that begin so; none where the daemon cannot be asked."""
        from click.shell_completion import CompletionItem

        path = self._path if isinstance(self._path, str) else self._path(context)
        if path is None:
            return []
        return [
            CompletionItem(name) for name in _listed(context, path, self._key) if name.startswith(incomplete)
        ]


def _listed(context: click.Context, path: str, key: str) -> Iterable[str]:
    root = context.find_root()
    # The root's function is not called to complete.
    session = root.obj or Session(root.params["server"], credentials=credentials_of(root.params))
    try:
        session.client.patience(_PATIENCE_SECONDS)
        document: Any = session.client.call("GET", path, query={"limit": 1000}).document
    except SluiceError:
        return []
    finally:
        session.close()
    return [str(item[key]) for item in document["items"]]


def _backends(context: click.Context) -> str | None:
    from lb.cli.client import quoted

    service = context.params.get("service")
    return f"/services/{quoted(service)}/backends" if service else None


SERVICE = Known("/services")
BACKEND = Known(_backends, "address")
RULE = Known("/rules")
FEED = Known("/feeds")
BLOCKED = Known("/blocklist", "prefix")
ALLOWED = Known("/allowlist", "prefix")
VERDICT = Known("/verdicts")
