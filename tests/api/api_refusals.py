"""Requests that are refused: one of every kind, for every verb that there is."""

from typing import Any

JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain"}
YAML = {"Content-Type": "application/yaml"}
BACKENDS = "/v1/services/web/backends"
NEW = {"name": "new", "vip": "192.0.2.11", "port": 80, "protocol": "tcp"}

# method, path, what is sent, status, and the pointers (or parameters) at fault
REFUSED: list[tuple[str, str, dict[str, Any], int, list[str]]] = [
    # 400: it cannot be read
    ("POST", "/v1/services", {"content": b"{", "headers": JSON}, 400, []),
    ("POST", "/v1/services", {"content": b"", "headers": JSON}, 400, []),
    ("POST", "/v1/services", {"content": b'{"name": "\xff"}', "headers": JSON}, 400, []),
    ("POST", "/v1/services", {"content": b'{"name": "\\ud800"}', "headers": JSON}, 400, []),
    ("POST", "/v1/services", {"content": b'{"port": NaN}', "headers": JSON}, 400, []),
    ("POST", "/v1/services", {"content": b"[" * 100_000, "headers": JSON}, 400, []),
    ("PUT", "/v1/services/new", {"content": b"{]", "headers": JSON}, 400, []),
    ("PATCH", "/v1/services/web", {"content": b"{]", "headers": JSON}, 400, []),
    ("PUT", BACKENDS, {"content": b"[", "headers": JSON}, 400, []),
    ("PUT", f"{BACKENDS}/10.0.0.13", {"content": b"1e", "headers": JSON}, 400, []),
    ("POST", "/v1/blocklist", {"content": b"[{]", "headers": JSON}, 400, []),
    ("POST", "/v1/blocklist", {"content": b"192.0.2.1\n\xff\n", "headers": TEXT}, 400, []),
    ("PUT", "/v1/allowlist", {"content": b"\x1f\x8b\x08", "headers": TEXT}, 400, []),
    ("PUT", "/v1/config", {"content": b"services: [", "headers": YAML}, 400, []),
    ("PUT", "/v1/config", {"content": b"services: []", "headers": JSON}, 400, []),
    # 404: what was named is not there
    ("PATCH", "/v1/services/none", {"json": {}}, 404, []),
    ("DELETE", "/v1/services/none", {}, 404, []),
    ("PUT", "/v1/services/none/backends", {"json": []}, 404, []),
    ("PUT", "/v1/services/none/backends/10.0.0.13", {"json": {}}, 404, []),
    ("PATCH", f"{BACKENDS}/10.0.0.99", {"json": {}}, 404, []),
    ("DELETE", f"{BACKENDS}/10.0.0.99", {}, 404, []),
    ("POST", f"{BACKENDS}/10.0.0.99/drain", {}, 404, []),
    ("POST", f"{BACKENDS}/10.0.0.99/enable", {}, 404, []),
    ("POST", f"{BACKENDS}/10.0.0.99/disable", {}, 404, []),
    ("DELETE", "/v1/blocklist/192.0.2.200", {}, 404, []),
    ("DELETE", "/v1/allowlist/192.0.2.200", {}, 404, []),
    # 409: it clashes with what exists
    ("POST", "/v1/services", {"json": {**NEW, "name": "web"}}, 409, []),
    ("POST", "/v1/services", {"json": {**NEW, "vip": "192.0.2.10"}}, 409, []),
    ("PUT", "/v1/services/new", {"json": {**NEW, "vip": "192.0.2.10", "port": "79-81"}}, 409, []),
    ("PUT", "/v1/services/new", {"json": {**NEW, "backends": [{"address": "192.0.2.10"}]}}, 409, []),
    ("DELETE", "/v1/blocklist/192.0.2.9", {}, 409, []),
    # 415: a body of a type that is not taken
    ("POST", "/v1/services", {"data": {"name": "new"}}, 415, []),
    ("POST", "/v1/services", {"content": b"{}", "headers": TEXT}, 415, []),
    ("POST", "/v1/blocklist", {"content": b"-", "headers": YAML}, 415, []),
    ("PUT", "/v1/config", {"content": b"-", "headers": {**JSON, "Content-Encoding": "gzip"}}, 415, []),
    # 422: services and backends
    ("POST", "/v1/services", {"json": []}, 422, [""]),
    ("POST", "/v1/services", {"json": {"name": "new"}}, 422, ["/vip", "/port", "/protocol"]),
    ("POST", "/v1/services", {"json": {**NEW, "colour": "red"}}, 422, ["/colour"]),
    ("POST", "/v1/services", {"json": {**NEW, "a/b~c": 1}}, 422, ["/a~1b~0c"]),
    ("POST", "/v1/services", {"json": {**NEW, "port": 70000}}, 422, ["/port"]),
    (
        "POST",
        "/v1/services",
        {"json": {**NEW, "backends": [{"address": "10.0.0.1"}, {"address": "10.0.0.2", "weight": -1}]}},
        422,
        ["/backends/1/weight"],
    ),
    ("PUT", "/v1/services/new", {"json": NEW | {"name": "other"}}, 422, ["/name"]),
    ("PUT", "/v1/services/b%20d", {"json": {k: v for k, v in NEW.items() if k != "name"}}, 422, ["/name"]),
    ("PATCH", "/v1/services/web", {"json": {"name": "other"}}, 422, ["/name"]),
    ("PATCH", "/v1/services/web", {"json": {"vip": None}}, 422, ["/vip"]),
    ("PATCH", "/v1/services/web", {"json": "affinity"}, 422, [""]),
    ("PUT", BACKENDS, {"json": {"address": "10.0.0.1"}}, 422, [""]),
    ("PUT", BACKENDS, {"json": {"items": [], "more": 1}}, 422, ["/more"]),
    ("PUT", BACKENDS, {"json": {"items": [], "next": "x"}}, 422, ["/next"]),
    ("PUT", BACKENDS, {"json": [{"address": "10.0.0.1"}, {"address": "x"}]}, 422, ["/1/address"]),
    ("PUT", BACKENDS, {"json": [{"address": "10.0.0.1"}] * 2}, 422, ["/1/address"]),
    ("PUT", BACKENDS, {"json": {"items": [{"address": "192.0.2.10"}]}}, 422, ["/items/0/address"]),
    ("PUT", f"{BACKENDS}/10.0.0.13", {"json": {"address": "10.0.0.14"}}, 422, ["/address"]),
    ("PUT", f"{BACKENDS}/192.0.2.10", {"json": {}}, 422, ["/address"]),
    ("PUT", f"{BACKENDS}/10.0.0.13", {"json": {"weight": "2"}}, 422, ["/weight"]),
    ("PUT", f"{BACKENDS}/nonsense", {"json": {}}, 422, ["address"]),
    ("PATCH", f"{BACKENDS}/10.0.0.11", {"json": {"address": "10.0.0.14"}}, 422, ["/address"]),
    ("DELETE", f"{BACKENDS}/nonsense", {}, 422, ["address"]),
    # 422: lists
    ("POST", "/v1/blocklist", {"json": {"prefix": "192.0.2.1/24"}}, 422, ["/prefix"]),
    ("POST", "/v1/blocklist", {"json": {"reason": "x"}}, 422, ["/prefix"]),
    ("POST", "/v1/blocklist", {"json": "192.0.2.1"}, 422, [""]),
    (
        "POST",
        "/v1/blocklist",
        {"json": ["192.0.2.1", {"prefix": "x"}, {"prefix": "y"}]},
        422,
        ["/1/prefix", "/2/prefix"],
    ),
    (
        "POST",
        "/v1/blocklist",
        {"json": {"items": [{"prefix": "192.0.2.1"}, {"prefix": "192.0.2.2", "ttl_seconds": 0}]}},
        422,
        ["/items/1/ttl_seconds"],
    ),
    ("POST", "/v1/blocklist", {"json": [{"prefix": "192.0.2.1", "colour": 1}]}, 422, ["/0/colour"]),
    ("POST", "/v1/blocklist?feed=spam", {"json": []}, 422, ["feed"]),
    ("POST", "/v1/blocklist?reason=x", {"json": []}, 422, ["reason"]),
    ("POST", "/v1/blocklist?feed=a%20b", {"content": b"", "headers": TEXT}, 422, ["feed"]),
    ("POST", "/v1/blocklist?ttl_seconds=x", {"content": b"", "headers": TEXT}, 422, ["ttl_seconds"]),
    ("POST", "/v1/blocklist?action=x", {"content": b"", "headers": TEXT}, 422, ["action"]),
    ("POST", "/v1/allowlist", {"json": {"prefix": "192.0.2.1", "action": "drop"}}, 422, ["/action"]),
    ("PUT", "/v1/blocklist", {"json": {"items": [], "next": "192.0.2.1/32"}}, 422, ["/next"]),
    ("PUT", "/v1/blocklist", {"json": [{"prefix": "192.0.2.9", "owner": "feed:spam"}]}, 422, ["/0/owner"]),
    ("PUT", "/v1/blocklist/192.0.2.1", {"json": {"prefix": "192.0.2.2"}}, 422, ["/prefix"]),
    ("PUT", "/v1/blocklist/192.0.2.1/24", {"json": {}}, 422, ["prefix"]),
    ("PUT", "/v1/blocklist/192.0.2.1", {"json": []}, 422, [""]),
    ("DELETE", "/v1/blocklist/", {}, 422, ["prefix"]),
    # 422: the document
    ("PUT", "/v1/config", {"json": []}, 422, [""]),
    ("PUT", "/v1/config", {"json": {"colour": 1}}, 422, ["/colour"]),
    ("PUT", "/v1/config?dry_run=perhaps", {"json": {}}, 422, ["dry_run"]),
]

# path, status
READS = [
    ("/v1/services/none", 404),
    ("/v1/services/none/backends", 404),
    ("/v1/services/none/status", 404),
    (f"{BACKENDS}/10.0.0.99", 404),
    (f"{BACKENDS}/nonsense", 422),
    ("/v1/blocklist/192.0.2.200", 404),
    ("/v1/blocklist/nonsense", 422),
    ("/v1/blocklist?limit=0", 422),
    ("/v1/blocklist?limit=10001", 422),
    ("/v1/blocklist?after=nonsense", 422),
    ("/v1/config/revisions?after=x", 422),
    ("/v1/operations/drain~web~10.0.0.11", 404),
    ("/v1/operations/drain~web~10.0.0.99", 404),
    ("/v1/operations/drain~none~10.0.0.11", 404),
    ("/v1/operations/other", 404),
]
