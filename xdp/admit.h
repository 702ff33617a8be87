/* Stage admit: which packets may enter. allow > deny, then spoofed, then rules and limits, on the packet's own fields.
 *
 * The allowlist is looked up only for what would be dropped, so it costs nothing otherwise.
 */

/* Sources that no host has: this host's (0/8, ::), loopback, multicast. Addresses are in network order. */
static __always_inline bool is_nobodys(const struct packet *p)
{
	u32 first = p->source6[0] & 0xff;

	if (p->family == 4)
		return first == 0 || first == 127 || (first & 0xf0) == 0xe0;
	return first == 0xff || (!(p->source6[0] | p->source6[1] | p->source6[2]) && !(p->source6[3] & bpf_htonl(~1U)));
}

/* What a backend answers to our own check: a VIP as the source is right here. Asked only of what has one. */
static __always_inline bool is_probe_answer(const struct packet *p)
{
	u16 port = bpf_ntohs(p->port);

	return p->has_ports && port >= PROBE_PORT_FIRST && port <= PROBE_PORT_LAST && !is_for_vip(p);
}

/* A VIP as the source is never a client's: a backend's replies go straight back, and pass here to our own checks alone. */
static __always_inline bool is_spoofed(const struct packet *p)
{
	if (is_nobodys(p))
		return true;
	return (p->family == 4 ? is_vip4(p->source4) : is_vip6(p->source6)) && !(HAVE_PROBES && is_probe_answer(p));
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

static __always_inline void count_blocked(u32 entry, const struct packet *p)
{
	struct entry_tally *tally = deny_counters.lookup(&entry);

	if (tally)
		count_entry(tally, p);
}

static __always_inline int admit(struct packet *p)
{
	u32 entry = deny_entry(p);
	bool allowed = false, blocked = false;
	int verdict;

	if (TRACE)
		p->trace->deny_entry = entry;
	if (HAVE_SAMPLES || HAVE_BANS)
		p->entry = entry;
	if (entry) {
		allowed = HAVE_ALLOW && entry < ENTRY_COUNT_ONLY && is_allowed(p);
		blocked = !allowed && entry < ENTRY_COUNT_ONLY;
		if (!allowed && (!blocked || !HAVE_RULE_ALLOW))
			count_blocked(entry, p);
		if (blocked && !HAVE_RULE_ALLOW)
			return DROP_BLOCKLIST;
	}
	verdict = blocked ? DROP_BLOCKLIST : CONTINUE;
	if (HAVE_SPOOF && is_spoofed(p))
		verdict = blocked ? DROP_BLOCKLIST : DROP_SPOOFED;
	else if (HAVE_RULES && !allowed)
		verdict = ask_rules(p, blocked);
	if (HAVE_RULE_ALLOW && verdict == DROP_BLOCKLIST)
		count_blocked(entry, p);
	return verdict;
}
