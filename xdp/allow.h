/* Counters of list entries; and the allowlist, which is looked up only for what would be dropped. */

/* Counts a packet for its entry; blocklist numbers from ENTRY_COUNT_ONLY on only count and let pass. */
static __always_inline void count_entry(struct entry_tally *tally, const struct packet *p)
{
	if (TRACE)
		return;
	tally->packets++;
	tally->bytes += p->frame_length;
	tally->last_s = coarse_seconds();
}

static __always_inline bool is_allowed(const struct packet *p)
{
	struct entry_tally *tally;
	u32 *number;

	if (p->family == 4) {
		struct prefix4_key key = { .length = 32, .address = p->source4 };

		number = allow4.lookup(&key);
	} else {
		struct prefix6_key key = { .length = 128 };

		__builtin_memcpy(key.address, p->source6, 16);
		number = allow6.lookup(&key);
	}
	if (!number)
		return false;
	if (TRACE)
		p->trace->allow_entry = *number;
	tally = allow_counters.lookup(number);
	if (tally)
		count_entry(tally, p);
	return true;
}
