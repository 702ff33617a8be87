"""What the operator wants: immutable values, all validation, no I/O."""

from lb.model.config import Config, Settings
from lb.model.entries import Action, Entry, PrefixList
from lb.model.feed import Feed, FeedFormat
from lb.model.flood import FloodProtection
from lb.model.health import HealthCheck
from lb.model.port import Port
from lb.model.prefix import Prefix
from lb.model.rule import Limit, Rule
from lb.model.service import AdminState, Affinity, Backend, Mode, NatSource, Protocol, Service

__all__ = [
    "Action",
    "AdminState",
    "Affinity",
    "Backend",
    "Config",
    "Entry",
    "Feed",
    "FeedFormat",
    "FloodProtection",
    "HealthCheck",
    "Limit",
    "Mode",
    "NatSource",
    "Port",
    "Prefix",
    "PrefixList",
    "Protocol",
    "Rule",
    "Service",
    "Settings",
]
