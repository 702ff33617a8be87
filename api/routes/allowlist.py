"""/allowlist: prefixes whose packets the blocklist does not stop."""

from api.list_kinds import ALLOWLIST
from api.routes.entry_lists import router_of

router = router_of(ALLOWLIST)
