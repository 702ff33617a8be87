"""/blocklist: prefixes whose packets are dropped, or only counted."""

from api.list_kinds import BLOCKLIST
from api.routes.entry_lists import router_of

router = router_of(BLOCKLIST)
