/* Stage nat, from backends to clients: by the pool address and port that they come for, or, with keep, by the index. */
/* The Ethernet header of what goes to a client: its next hop's MAC, from ours, which the packet came for. */
static __always_inline int write_client_mac(struct xdp_md *ctx, u64 mac, u32 our_first4, u16 our_last2)
{
	void *data = (void *)(long)ctx->data;

	if (data + sizeof(struct ethhdr) > (void *)(long)ctx->data_end)
		return DROP_INTERNAL;
	*(u32 *)data = mac;
	*(u16 *)(data + 4) = mac >> 32;
	*(u32 *)(data + 6) = our_first4;
	*(u16 *)(data + 10) = our_last2;
	return CONTINUE;
}

static __always_inline int nat_leave_to_client(struct xdp_md *ctx, struct packet *p, const struct nat_flow *flow, u64 mac)
{
	int stop = write_client_mac(ctx, mac, OUR_MAC_FIRST4, OUR_MAC_LAST2);

	if (stop)
		return stop;
	if (HAVE_REDIRECT && flow->forward->ifindex != OUR_IFINDEX) {
		p->egress_ifindex = flow->forward->ifindex;
		return REDIRECT_NAT_REPLY;
	}
	return TX_NAT_REPLY;
}

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
	bool echo = HAVE_NAT_ECHO && is_icmp_protocol(p->protocol);

	to->family = family;
	copy_address(to->destination, reply->client);
	if (family == 4)
		to->source[0] = reply->vip4;
	else
		copy_address(to->source, flow->forward->vip);
	to->source_port = echo ? 0 : reply->vip_port;
	to->port = reply->client_port;
}

static __always_inline int nat_send_reply(struct xdp_md *ctx, struct packet *p, struct nat_flow *flow)
{
	u64 mac = *(volatile u64 *)flow->reply->mac;
	u8 family = mac >> 52 & 6;
	struct nat_tuple to = {};
	int stop;

	trace_nat(p, flow->slot, flow->forward->state, flow->reply->state);
	stop = nat_check_way(ctx, p, family, OUR_MTU);
	if (stop)
		return stop;
	nat_saw_reply(p, flow->reply);
	nat_homeward(p, flow, family, &to);
	stop = nat_rewrite(ctx, p, &to);
	if (stop)
		return stop;
	return nat_leave_to_client(ctx, p, flow, mac);
}

/* What comes for a pool address, of the entry that the first program has found. */
static __always_inline int nat_reply_of_slot(struct xdp_md *ctx, struct packet *p, u32 slot)
{
	struct nat_flow flow = { .slot = slot };

	flow.forward = nat_forward.lookup(&slot);
	flow.reply = nat_reply.lookup(&slot);
	if (!flow.forward || !flow.reply)
		return DROP_INTERNAL;
	return nat_send_reply(ctx, p, &flow);
}

/* What comes from a backend whose gateway we are, and is for no VIP. */
static __always_inline int nat_reply_kept(struct xdp_md *ctx, struct packet *p, int otherwise)
{
	struct nat_flow flow;
	u32 slot;

	if (!p->has_ports || !nat_find(p, nat_hash(p->source6, p->vip6, nat_ports(p)), true, &flow))
		return otherwise;
	slot = flow.slot;
	flow.reply = nat_reply.lookup(&slot);
	if (!flow.reply)
		return DROP_INTERNAL;
	return nat_send_reply(ctx, p, &flow);
}

/* An error from the backend's side, which quotes a request: to the client, as one about what it sent. */
static __always_inline int nat_reply_error(struct xdp_md *ctx, struct packet *p, struct nat_flow *flow)
{
	u64 mac = *(volatile u64 *)flow->reply->mac;
	u8 family = mac >> 52 & 6;
	struct nat_tuple reply = {};
	struct nat_error to = {};
	int stop;

	trace_nat(p, flow->slot, flow->forward->state, flow->reply->state);
	stop = nat_check_way(ctx, p, family, OUR_MTU);
	if (stop)
		return stop;
	nat_homeward(p, flow, family, &reply);
	to.outer = reply;
	to.quote.family = family;
	copy_address(to.quote.source, reply.destination);
	copy_address(to.quote.destination, reply.source);
	to.quote.source_port = reply.port;
	to.quote.port = reply.source_port;
	stop = nat_translate_error(ctx, p, &to);
	if (stop)
		return stop;
	return nat_leave_to_client(ctx, p, flow, mac);
}

/* The entry at a slot, if a packet is, or quotes the request of, its reply. */
static __always_inline bool nat_entry_of(const struct packet *p, u32 slot, struct nat_flow *flow)
{
	flow->slot = slot;
	flow->forward = nat_forward.lookup(&slot);
	flow->reply = nat_reply.lookup(&slot);
	return flow->forward && flow->reply && nat_is_reply(flow->reply, p);
}

/* ICMP for a pool address: the reply to an echo request, or an error. */
static __always_inline int nat_icmp(struct xdp_md *ctx, struct packet *p, u32 block)
{
	u32 at = p->l4 & L4_MOST;
	struct icmp_header *icmp = p->data + at;
	struct nat_flow flow;
	int stop;

	if (at + sizeof(*icmp) > p->l3 + p->l3_length || (void *)(icmp + 1) > p->end)
		return DROP_TRUNCATED;
	if (HAVE_NAT_ECHO && icmp->type == (p->family == 4 ? 0 : 129) && !icmp->code) {
		p->port = icmp->rest;
		p->source_port = 0;
		if (!nat_entry_of(p, block << 16 | bpf_ntohs(p->port), &flow))
			return PASS_PROTOCOL;
		return nat_send_reply(ctx, p, &flow);
	}
	if (!is_error(p, icmp->type))
		return PASS_PROTOCOL;
	stop = p->family == 4 ? read_quote4(p, at + sizeof(*icmp)) : read_quote6(p, at + sizeof(*icmp));
	if (stop)
		return stop;
	if (!nat_entry_of(p, block << 16 | bpf_ntohs(p->port), &flow))
		return PASS_ICMP_ERROR;
	return nat_reply_error(ctx, p, &flow);
}
