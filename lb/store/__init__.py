"""The one holder of desired state: revisions, history, audit."""

from lb.store.base import RevisionInfo, Store
from lb.store.sqlite import SqliteStore

__all__ = ["RevisionInfo", "SqliteStore", "Store"]
