/* Stage nat, from clients to backends: the entry of the index, or a new one, and the way out. */
/* Whether a packet may open a flow. */
static __always_inline bool nat_may_open(const struct packet *p)
{
	return p->protocol != IPPROTO_TCP || opens_tcp(p);
}

/* Whether a flow stays with the entry it was found at; then its backend is chosen. An entry of the pool is none of keep. */
static __always_inline bool nat_stays(struct packet *p, const struct service *service, const struct nat_flow *flow,
				      struct backend **chosen, bool *again)
{
	struct backend *backend;
	u32 place = service->backends + flow->forward->place, block = flow->slot >> 16;
	struct nat_pool *pool = nat_pools.lookup(&block);

	if (flow->forward->service != service->number)
		return false;
	backend = find_backend(place);
	if (!backend || !may_stay(service, backend) || !pool || (pool->family == 0) != backend->nat_keep)
		return false;
	*again = opens_tcp(p) && !p->quoted && nat_is_closing(flow->forward->state, flow->reply->state);
	if (*again && !(backend->state & BACKEND_IN_RING))
		return false;
	p->backend = place;
	*chosen = backend;
	return true;
}

/* From the entry's client to its backend. */
static __always_inline void nat_outward(const struct packet *p, const struct backend *backend, u32 slot,
					const struct nat_pool *pool, struct nat_tuple *to)
{
	to->family = backend->family;
	copy_address(to->destination, backend->address);
	to->port = backend_port(p, backend);
	if (HAVE_NAT_KEEP && backend->nat_keep) {
		copy_address(to->source, p->source6);
		to->source_port = p->source_port;
	} else {
		copy_address(to->source, pool->address);
		to->source_port = bpf_htons(slot & 0xffff);
	}
}

/* Who sent an error: p->source6 is the client that it quotes. */
static __always_inline void nat_outer_source(const struct packet *p, u32 *source)
{
	if (p->family == 4) {
		struct iphdr *ip = p->data + (p->l3 & L3_MOST);

		if ((void *)(ip + 1) <= p->end)
			source[0] = ip->saddr;
	} else {
		struct ipv6hdr *ip = p->data + (p->l3 & L3_MOST);

		if ((void *)(ip + 1) <= p->end)
			__builtin_memcpy(source, &ip->saddr, 16);
	}
}

/* What an error quotes went the other way: as its receiver sent it. */
static __always_inline void nat_turn_quote(struct nat_way *way)
{
	way->quote.family = way->to.family;
	copy_address(way->quote.source, way->to.destination);
	copy_address(way->quote.destination, way->to.source);
	way->quote.source_port = way->to.port;
	way->quote.port = way->to.source_port;
}

static __always_inline int nat_request(struct packet *p, const struct service *service, struct nat_way *way)
{
	u64 hash = nat_hash(p->source6, p->vip6, nat_ports(p));
	struct backend *backend = NULL;
	struct nat_flow flow;
	struct nat_pool *pool;
	bool found, again = false, track;
	u32 offset, block;
	int stop;

	found = nat_find(p, hash, false, &flow);
	if (found) {
		u32 slot = flow.slot;

		flow.reply = nat_reply.lookup(&slot);
		if (!flow.reply)
			return DROP_INTERNAL;
		trace_nat(p, flow.slot, flow.forward->state, flow.reply->state);
		if (!nat_stays(p, service, &flow, &backend, &again)) {
			if (!p->quoted)
				nat_unpublish(hash, flow.slot);
			found = false;
		}
	}
	if (!found && p->quoted)
		return PASS_ICMP_ERROR;
	if (!found) {
		if (!nat_may_open(p))
			return DROP_NAT_NO_FLOW;
		stop = open_flow(p, service, &track);
		if (stop)
			return stop;
		offset = ask_ring(p, service);
		if (offset == NONE)
			return DROP_NO_BACKEND;
		trace_via(p, VIA_RING);
		p->backend = place_of(service, offset);
		backend = find_backend(p->backend);
	} else {
		trace_via(p, VIA_FLOW);
	}
	if (!backend)
		return DROP_INTERNAL;
	if (!(backend->state & BACKEND_RESOLVED))
		return DROP_NO_NEXT_HOP;
	if (!found) {
		stop = nat_open(p, service, backend, hash, &flow);
		if (stop)
			return stop;
		count_new_flow(true, false, true);
		if (TRACE)
			trace_nat(p, flow.slot, 0, 0);
	} else if (again) {
		nat_reopen(p, &flow);
		nat_learn_way(p, &flow, backend->family);
	} else if (!p->quoted) {
		nat_saw_request(p, service, &flow, backend->family);
	}
	block = flow.slot >> 16;
	pool = nat_pools.lookup(&block);
	if (!pool)
		return DROP_INTERNAL;
	nat_outward(p, backend, flow.slot, pool, &way->to);
	if (p->quoted) {
		nat_turn_quote(way);
		if (HAVE_NAT_KEEP && backend->nat_keep)
			nat_outer_source(p, way->to.source);
	}
	/* Each read whole, as it is written: no packet gets half of a MAC that changes. */
	way->mac = *(const volatile u64 *)backend->mac;
	way->our_mac = *(const u64 *)backend->source_mac;
	way->ifindex = backend->ifindex;
	way->mtu = backend->mtu;
	return CONTINUE;
}
