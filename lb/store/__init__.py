"""The one holder of desired state: revisions, history, audit."""

from lb.store.base import Pending, RevisionInfo, Store
from lb.store.sqlite import SqliteStore

__all__ = ["Pending", "RevisionInfo", "SqliteStore", "Store"]
