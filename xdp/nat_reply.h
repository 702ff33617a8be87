/* Stage nat, from backends to clients: found by pool address and port, or, with keep, by the index. */
static __always_inline void nat_saw_reply(const struct packet *p, struct nat_reply *reply)
{
	u64 state = reply->state, wanted = coarse_seconds() << 32 | ((u32)state | nat_flags(p));

	if (wanted != state)
		write_whole(&reply->state, wanted);
}

/* From the entry's backend to its client. */
static __always_inline void nat_homeward(const struct packet *p, const struct nat_flow *flow, u8 family, struct nat_tuple *to)
{
	const struct nat_reply *reply = flow->reply;

	to->family = family;
	copy_address(to->destination, reply->client);
	if (family == 4)
		to->source[0] = reply->vip4;
	else
		copy_address(to->source, flow->forward->vip);
	to->source_port = reply->vip_port;
	to->port = reply->client_port;
}

/* The way back of an entry's packets. */
static __always_inline int nat_way_home(const struct packet *p, const struct nat_flow *flow, struct nat_way *way)
{
	u64 mac = *(volatile u64 *)flow->reply->mac, there;

	trace_nat(p, flow->slot, flow->forward->state, flow->reply->state);
	nat_homeward(p, flow, mac >> 52 & 6, &way->to);
	way->mac = mac;
	way->ifindex = flow->forward->ifindex;
	there = nat_interface_of(way->ifindex);
	way->our_mac = there;
	way->mtu = there >> 48;
	way->home = true;
	return CONTINUE;
}

/* The entry at a slot, if a packet is, or quotes the request of, its reply. */
static __always_inline bool nat_entry_of(const struct packet *p, u32 slot, struct nat_flow *flow)
{
	flow->slot = slot;
	flow->forward = nat_forward.lookup(&slot);
	flow->reply = nat_reply.lookup(&slot);
	return flow->forward && flow->reply && nat_is_reply(flow->reply, p);
}

/* ICMP for a pool address, or for a client that backends see: whether it is an error about a request. */
static __always_inline int nat_read_error(struct packet *p)
{
	u32 at = p->l4 & L4_MOST;
	struct icmp_header *icmp = p->data + at;

	if (at + sizeof(*icmp) > p->l3 + p->l3_length || (void *)(icmp + 1) > p->end)
		return DROP_TRUNCATED;
	if (!is_error(p, icmp->type))
		return PASS_PROTOCOL;
	return p->family == 4 ? read_quote4(p, at + sizeof(*icmp), true) : read_quote6(p, at + sizeof(*icmp), true);
}

/* What comes from a backend whose gateway we are, and is for no VIP, or quotes what went to one. */
static __always_inline bool nat_kept_reply(struct packet *p, struct nat_flow *flow)
{
	u32 slot;

	if (!p->has_ports && !(is_icmp(p) && !nat_read_error(p)) && !(HAVE_NAT_ICMP && read_echo_reply(p)))
		return false;
	if (!nat_find(p, nat_hash(p->source6, p->vip6, nat_ports(p)), true, flow))
		return false;
	slot = flow->slot;
	flow->reply = nat_reply.lookup(&slot);
	return flow->reply != NULL;
}

/* From backends: a reply, or an error about a request. kind: NAT_*, word: as it was handed over. */
static __always_inline int nat_from_backend(struct packet *p, u32 kind, u32 word, struct nat_way *way)
{
	struct nat_flow flow;
	int stop;

	if (kind == NAT_REPLY) {
		flow.slot = word & NAT_SLOT_MASK;
		word = flow.slot;
		flow.forward = nat_forward.lookup(&word);
		flow.reply = nat_reply.lookup(&word);
		if (!flow.forward || !flow.reply)
			return DROP_INTERNAL;
	} else if (kind == NAT_ICMP) {
		stop = nat_read_error(p);
		if (stop)
			return stop;
		if (!nat_entry_of(p, (word & 0xff) << 16 | bpf_ntohs(p->port), &flow))
			return PASS_ICMP_ERROR;
	} else if (!HAVE_NAT_KEEP || !nat_kept_reply(p, &flow)) {
		return word;
	}
	nat_way_home(p, &flow, way);
	if (p->quoted)
		nat_turn_quote(way);
	else
		nat_saw_reply(p, flow.reply);
	return CONTINUE;
}
