/* Stage admit: who may come in. allow > deny, then spoofed, on the packet's own source address.
 *
 * The allowlist is asked only about what the blocklist would drop, so it costs the rest nothing.
 */

/* An entry at work: a blocklist number from ENTRY_COUNT_ONLY on counts and lets pass. */
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

/* Sources that no host has: this host's (0/8, ::), loopback, multicast. Addresses are in network order. */
static __always_inline bool is_nobodys(const struct packet *p)
{
	u32 first = p->source6[0] & 0xff;

	if (p->family == 4)
		return first == 0 || first == 127 || (first & 0xf0) == 0xe0;
	return first == 0xff || (!(p->source6[0] | p->source6[1] | p->source6[2]) && !(p->source6[3] & bpf_htonl(~1U)));
}

/* A VIP as the source is never a client's: a backend's replies go straight back and do not pass here. */
static __always_inline bool is_spoofed(const struct packet *p)
{
	return is_nobodys(p) || (p->family == 4 ? is_vip4(p->source4) : is_vip6(p->source6));
}

/* The number of the blocklist's longest prefix for the source, 0 for none. */
static __always_inline u32 deny_entry(const struct packet *p)
{
	if (HAVE_DENY4 && p->family == 4)
		return deny4_entry(bpf_ntohl(p->source4));
	if (HAVE_DENY6 && p->family == 6)
		return deny6_entry(p->source6);
	return 0;
}

static __always_inline int admit(const struct packet *p)
{
	u32 entry = deny_entry(p);

	if (TRACE)
		p->trace->deny_entry = entry;
	if (entry && !(HAVE_ALLOW && entry < ENTRY_COUNT_ONLY && is_allowed(p))) {
		struct entry_tally *tally = deny_counters.lookup(&entry);

		if (tally)
			count_entry(tally, p);
		if (entry < ENTRY_COUNT_ONLY)
			return DROP_BLOCKLIST;
	}
	return HAVE_SPOOF && is_spoofed(p) ? DROP_SPOOFED : CONTINUE;
}
