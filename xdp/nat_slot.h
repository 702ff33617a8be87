/* NAT's slots: the state of an entry, how long it lives, and which slot a new flow gets.
 *
 * A slot is taken by compare-and-swap of its first word; states are written whole, each direction's by its own packets.
 */
static __always_inline bool nat_is_closing(u64 forward, u64 reply)
{
	return (forward | reply) & NAT_RST || forward & reply & NAT_FIN;
}

/* Seconds that a flow lives without a packet. */
static __always_inline u32 nat_life(u64 forward, u64 reply, u8 protocol)
{
	if (HAVE_NAT_ICMP && protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return reply & NAT_SYN ? NAT_ICMP_IDLE_S : NAT_OPENING_S;
	if (protocol != IPPROTO_TCP)
		return reply & NAT_SYN ? NAT_UDP_IDLE_S : NAT_OPENING_S;
	if (nat_is_closing(forward, reply))
		return NAT_CLOSING_S;
	return forward & NAT_ACK && reply & NAT_SYN ? NAT_TCP_IDLE_S : NAT_OPENING_S;
}

/* Whether an entry has been over for so long that nobody seems to free any. */
static __always_inline bool nat_is_overdue(const struct nat_forward *entry, u32 slot, u64 now_s)
{
	struct nat_reply *other = nat_reply.lookup(&slot);
	u64 forward = entry->state, reply = other ? other->state : 0, seen = forward > reply ? forward : reply;

	return (s64)(now_s - (seen >> 32)) > (s64)nat_life(forward, reply, entry->ports >> 32) + NAT_OVERDUE_S;
}

static __always_inline struct nat_tally *nat_tally(void)
{
	u32 key = 0;

	return TRACE ? NULL : nat_counters.lookup(&key);
}

/* What a packet's direction has seen with it. */
static __always_inline u64 nat_flags(const struct packet *p)
{
	u32 tcp = p->tcp_flags;

	if (p->protocol != IPPROTO_TCP)
		return NAT_SYN;
	return (tcp & TCP_SYN ? NAT_SYN : NAT_ACK) | (tcp & TCP_FIN ? NAT_FIN : 0) | (tcp & TCP_RST ? NAT_RST : 0);
}

/* A slot of one of the list's blocks that nobody has, or that is overdue; its first word is then the flow's. 0: none of
 * those looked at: eight from the cursor on, then from a quarter, half and three quarters of all further on, so that a
 * long run of taken ones is in nobody's way. */
static __always_inline u32 nat_take_slot(u32 kind, u64 tag, u64 now_s)
{
	u32 key = 0, i, first, ports, at = 0, port = 0;
	struct nat_list *list = nat_lists.lookup(&kind);
	struct nat_cursor *cursor = nat_cursors.lookup(&key);
	struct nat_tally *tally = nat_tally();
	u64 head, blocks, asked, span, jump, *next;

	if (!list || !cursor)
		return 0;
	head = *(volatile u64 *)&list->head;
	blocks = head >> 32;
	first = head >> 16 & 0xffff;
	ports = (head & 0xffff) - first + 1;
	span = blocks * ports;
	if (!span)
		return 0;
	jump = span > NAT_PROBES ? span >> 2 : NAT_PROBES / 4;
	next = &cursor->asked[forget(kind, now_s, 3)];
	asked = TRACE ? *next : __sync_fetch_and_add(next, 1);
#pragma clang loop unroll(disable)
	for (i = 0; i < NAT_PROBES; i++) {
		struct nat_forward *entry;
		u64 before;
		u32 slot;

		if (!(i & (NAT_PROBES / 4 - 1))) {
			u64 place = (asked + i / (NAT_PROBES / 4) * jump) % span;

			at = place / ports;
			port = place % ports;
		} else if (++port == ports) {
			port = 0;
			at = at + 1 == blocks ? 0 : at + 1;
		}
		slot = (u32)list->block[at & (NAT_BLOCKS - 1)] << 16 | ((first + port) & 0xffff);
		entry = nat_forward.lookup(&slot);
		if (!entry)
			continue;
		before = *(volatile u64 *)&entry->word;
		if (before && !nat_is_overdue(entry, slot, now_s))
			continue;
		if (TRACE)
			return slot;
		if (__sync_val_compare_and_swap(&entry->word, before, nat_word(tag, slot)) != before)
			continue;
		if (i)
			write_whole(next, asked + i / (NAT_PROBES / 4) * jump + i % (NAT_PROBES / 4) + 1);
		if (before && tally)
			tally->taken_over++;
		return slot;
	}
	write_whole(next, asked + NAT_PROBES / 4);
	return 0;
}

/* A slot that no packet has come to yet is nobody's again. */
static __always_inline void nat_give_back(struct nat_flow *flow)
{
	write_whole(&flow->reply->live, 0);
	write_whole(&flow->forward->word, 0);
}
