/* The IPv6 blocklist: a filter in front, a hash of single addresses and /64s, a trie of the rest. lb/dataplane/deny6.py
 * writes it.
 *
 * The filter says, for a hash of an address's first 32 bits, which kinds of prefixes may contain it: for most sources, none.
 */

/* The kinds of prefixes there are among the addresses of this one's cell. */
static __always_inline u32 deny6_kinds(const u32 *address)
{
	u32 mixed = address[0] * DENY6_MIX, key = mixed >> (16 + DENY6_CELLS_SHIFT);
	struct deny6_cells *cells = deny6_filter.lookup(&key);

	return cells ? cells->cell[mixed >> 16 & DENY6_CELLS_MASK] : 0;
}

/* The number of the longest prefix for an address, 0 for none. */
static __always_inline u32 deny6_entry(const u32 *address)
{
	struct prefix6_key key = { .length = 128 };
	u32 kinds = deny6_kinds(address), best = 0, *found;

	if (!kinds)
		return 0;
	__builtin_memcpy(key.address, address, 16);
	if (kinds & DENY6_HOST) {
		found = deny6_hosts.lookup(&key);
		if (found)
			return *found;
	}
	if (kinds & DENY6_OTHER) {
		found = deny6_trie.lookup(&key);
		if (found)
			best = *found;
	}
	if (kinds & DENY6_NET64 && best >> DENY6_LENGTH_SHIFT < 64) {
		key.length = 64;
		key.address[2] = key.address[3] = 0;
		found = deny6_hosts.lookup(&key);
		if (found)
			return *found;
	}
	return best & 0xffff;
}
