/* A new NAT flow: its entry, complete before anybody can find it; and what a client's packets change in one. */
static __always_inline void copy_address(u32 *to, const u32 *from)
{
	__builtin_memcpy(to, from, 16);
}

static __always_inline u64 source_mac(const struct packet *p)
{
	if (p->data + sizeof(struct ethhdr) > p->end)
		return 0;
	return *(const u32 *)(p->data + 6) | (u64)*(const u16 *)(p->data + 10) << 32;
}

/* A flow's next hop towards its client, as its last packets came. */
static __always_inline void nat_learn_way(const struct packet *p, const struct nat_flow *flow, u8 backend_family)
{
	u64 near = OUR_IFINDEX <= 0xff ? OUR_IFINDEX : 0;
	u64 mac = source_mac(p) | (u64)(p->family << 4 | backend_family) << 48 | near << 56;

	if (*(u64 *)flow->reply->mac != mac)
		write_whole((u64 *)flow->reply->mac, mac);
	if (!TRACE && flow->forward->ifindex != OUR_IFINDEX)
		flow->forward->ifindex = OUR_IFINDEX;
	nat_tell_interface();
}

static __always_inline __be16 backend_port(const struct packet *p, const struct backend *backend)
{
	return backend->port ?: p->port;
}

/* Fills a slot that is ours: the way back is complete before the index leads to it. */
static __always_inline void nat_fill(const struct packet *p, const struct service *service, u32 place,
				     const struct backend *backend, struct nat_flow *flow, u64 reply_tag, u64 now_s)
{
	struct nat_forward *forward = flow->forward;
	struct nat_reply *reply = flow->reply;
	u64 live = (u64)protocol_in(p, backend->family) << 16 | backend_port(p, backend);

	write_whole(&reply->live, 0);
	copy_address(forward->client, p->source6);
	copy_address(forward->vip, p->vip6);
	forward->ports = nat_ports(p);
	forward->service = service->number;
	forward->place = place - service->backends;
	write_whole(&forward->state, now_s << 32 | nat_flags(p));
	copy_address(reply->backend, backend->address);
	copy_address(reply->client, p->source6);
	reply->vip4 = p->vip4;
	reply->client_port = p->source_port;
	reply->vip_port = p->port;
	write_whole(&reply->state, 0);
	nat_learn_way(p, flow, backend->family);
	write_whole(&reply->live, live | reply_tag << NAT_SLOT_BITS);
}

static __always_inline u32 nat_list_of(const struct backend *backend)
{
	if (HAVE_NAT_KEEP && backend->nat_keep)
		return NAT_LIST_KEEP;
	return backend->family == 4 ? 0 : 1;
}

/* The reply of a flow with keep, as a packet. */
static __always_inline u64 nat_kept_hash(const struct packet *p, const struct backend *backend)
{
	u64 ports = backend_port(p, backend) | (u64)p->source_port << 16 | (u64)p->protocol << 32 | (u64)p->family << 40;

	return nat_hash(backend->address, p->source6, ports);
}

/* Whether another flow has the reply's tuple. If none, replies are the entry's: one that this flow has left gives them up. */
static __always_inline bool nat_clashes(const struct packet *p, const struct backend *backend, u64 hash, u32 slot)
{
	struct packet reply = { .source_port = backend_port(p, backend), .port = p->source_port, .family = p->family,
				.protocol = p->protocol };
	struct nat_flow found;

	copy_address(reply.source6, backend->address);
	copy_address(reply.vip6, p->source6);
	if (nat_find_but(&reply, hash, true, p, &found))
		return true;
	if (!TRACE && nat_find(&reply, hash, true, &found) && found.slot != slot)
		nat_unpublish(hash, found.slot);
	return false;
}

/* An entry that is taken over leaves its words in the index, where nobody would ever take them out: the next packet does. Here,
 * on the way of so many kinds of packets, a look through two buckets is more than the verifier walks. */
static __always_inline void nat_note_former(const struct nat_flow *flow)
{
	const struct nat_forward *forward = flow->forward;
	const struct nat_reply *reply = flow->reply;
	u64 ports = (reply->live & 0xffff) | (u64)reply->client_port << 16 | forward->ports >> 32 << 32;
	u32 key = 0;
	struct handover *handover = handovers.lookup(&key);

	if (!handover || !forward->state) /* a slot that was free has no state */
		return;
	handover->former[0] = nat_hash(forward->client, forward->vip, forward->ports);
	if (HAVE_NAT_KEEP)
		handover->former[1] = nat_hash(reply->backend, reply->client, ports);
	handover->former_slot = flow->slot;
}

static __always_inline void nat_forget_former(struct handover *handover)
{
	u32 slot = handover->former_slot, i;
	struct nat_forward *forward;
	struct nat_reply *reply;

	if (TRACE || !slot)
		return;
	handover->former_slot = 0;
	forward = nat_forward.lookup(&slot);
	reply = nat_reply.lookup(&slot);
	if (!forward || !reply)
		return;
#pragma clang loop unroll(disable)
	for (i = 0; i < (HAVE_NAT_KEEP ? 2 : 1); i++) {
		u64 hash = handover->former[i & 1], tag = nat_tag(hash);

		/* Unless the same flow is back at the same slot. */
		if (forward->word >> NAT_SLOT_BITS != tag && reply->live >> NAT_SLOT_BITS != tag)
			nat_unpublish(hash, slot);
	}
}

/* A new entry for a flow, or the one that another CPU has made of it just now. */
static __always_inline int nat_open(struct packet *p, const struct service *service,
				    const struct backend *backend, u64 hash, struct nat_flow *flow)
{
	u64 now_s = coarse_seconds(), tag = nat_tag(hash), kept = 0;
	bool keep = HAVE_NAT_KEEP && backend->nat_keep, published;
	struct nat_tally *tally = nat_tally();
	u32 slot, list = nat_list_of(backend);
	struct nat_flow first;

	if (keep)
		kept = nat_kept_hash(p, backend);
	slot = nat_take_slot(list, tag, now_s);
	if (!slot) {
		if (tally && !TRACE)
			tally->no_port[list]++;
		return DROP_NAT_PORTS;
	}
	flow->slot = slot;
	flow->forward = nat_forward.lookup(&slot);
	flow->reply = nat_reply.lookup(&slot);
	if (!flow->forward || !flow->reply)
		return DROP_INTERNAL;
	if (TRACE)
		return keep && nat_clashes(p, backend, kept, slot) ? DROP_NAT_CLASH : CONTINUE;
	nat_note_former(flow);
	nat_fill(p, service, p->backend, backend, flow, keep ? nat_tag(kept) : tag, now_s);
	published = (!keep || nat_publish(kept, slot, false)) && nat_publish(hash, slot, true);
	if (nat_find(p, hash, false, &first) && first.slot != slot) {
		nat_unpublish(hash, slot);
		if (keep)
			nat_unpublish(kept, slot);
		nat_give_back(flow);
		if (tally)
			tally->raced++;
		slot = first.slot;
		flow->slot = slot;
		flow->forward = first.forward;
		flow->reply = nat_reply.lookup(&slot);
		return flow->reply ? CONTINUE : DROP_INTERNAL;
	}
	if (!published) {
		if (keep)
			nat_unpublish(kept, slot);
		nat_give_back(flow);
		if (tally)
			tally->no_port[list]++;
		return DROP_NAT_PORTS;
	}
	if (keep && nat_clashes(p, backend, kept, slot)) {
		nat_unpublish(hash, slot);
		nat_unpublish(kept, slot);
		nat_give_back(flow);
		return DROP_NAT_CLASH;
	}
	if (tally)
		tally->opened++;
	return CONTINUE;
}

/* A packet of the client's: the state of its direction. */
static __always_inline void nat_saw_request(const struct packet *p, const struct service *service, struct nat_flow *flow,
					    u8 backend_family)
{
	u64 state = flow->forward->state, wanted = coarse_seconds() << 32 | ((u32)state | nat_flags(p));

	if (wanted == state)
		return;
	write_whole(&flow->forward->state, wanted);
	nat_learn_way(p, flow, backend_family);
	if (HAVE_GUARD && service->flags & SERVICE_GUARD && (wanted ^ state) & NAT_ACK && p->protocol == IPPROTO_TCP)
		learn_source(p, p->service_number);
}

static __always_inline void nat_reopen(const struct packet *p, struct nat_flow *flow)
{
	struct nat_tally *tally = nat_tally();

	write_whole(&flow->reply->state, 0);
	write_whole(&flow->forward->state, coarse_seconds() << 32 | nat_flags(p));
	if (tally)
		tally->reopened++;
}
