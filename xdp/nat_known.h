/* Packets of known NAT flows that stay in their family: translated in the first program, without entering the second.
 *
 * A packet that opens a flow, is an error, cannot leave or crosses families is handed over unchanged.
 */
static __always_inline int nat_rewrite_known4(struct packet *p, u32 source, u32 destination, __be16 source_port, __be16 port)
{
	struct nat_tuple to = { .source[0] = source, .destination[0] = destination, .source_port = source_port, .port = port };

	return nat_rewrite4(p->data, p->end, p, &to);
}

static __always_inline int nat_rewrite_known6(struct packet *p, const u32 *source, const u32 *destination, __be16 source_port,
					     __be16 port)
{
	struct nat_tuple to = { .source_port = source_port, .port = port };

	copy_address(to.source, source);
	copy_address(to.destination, destination);
	return nat_rewrite6(p->data, p->end, p, &to);
}

static __always_inline bool nat_may_leave(const struct packet *p, u32 mtu)
{
	return ttl_of(p) > 1 && !(mtu && p->l3_length > mtu);
}

/* The entry that the first word of the flow's tag leads to, if it is the flow's; the others are the second program's. */
static __always_inline struct nat_forward *nat_find_known(const struct packet *p, u32 *slot)
{
	u64 ports = nat_ports(p), hash = nat_hash(p->source6, p->vip6, ports), word;
	struct nat_bucket *bucket = nat_bucket(hash);
	struct nat_forward *entry;

	word = bucket ? nat_scan(bucket, nat_tag(hash), 0) : 0;
	if (!word)
		return NULL;
	*slot = word & NAT_SLOT_MASK;
	entry = nat_forward.lookup(slot);
	return entry && nat_is_request(entry, word, p, ports) ? entry : NULL;
}

/* What a client's packet changes of its flow: false if that is more than the first program does. */
static __always_inline bool nat_saw_known(const struct packet *p, const struct service *service, struct nat_forward *entry,
					  u32 slot)
{
	u64 state = entry->state, wanted = coarse_seconds() << 32 | ((u32)state | nat_flags(p));
	struct nat_flow flow = { .forward = entry, .slot = slot };

	if (state == wanted)
		return true;
	if (HAVE_GUARD && service->flags & SERVICE_GUARD)
		return false;
	flow.reply = nat_reply.lookup(&slot);
	if (!flow.reply)
		return false;
	write_whole(&entry->state, wanted);
	nat_learn_way(p, &flow, p->family);
	return true;
}

/* A client's packet: the verdict by which it leaves, or CONTINUE. */
static __always_inline int nat_request_known(struct packet *p, const struct service *service)
{
	struct nat_forward *entry;
	struct backend *backend;
	struct nat_pool *pool;
	const u32 *source;
	bool keep;
	u32 slot = 0, place, block;
	__be16 port, source_port;
	u64 mac;
	int stop;

	if (TRACE || p->quoted || p->tcp_flags & TCP_SYN)
		return CONTINUE;
	entry = nat_find_known(p, &slot);
	if (!entry || entry->service != service->number)
		return CONTINUE;
	place = service->backends + entry->place;
	backend = find_backend(place);
	block = slot >> 16;
	pool = nat_pools.lookup(&block);
	if (!backend || !pool || !may_stay(service, backend) || backend->family != p->family)
		return CONTINUE;
	keep = HAVE_NAT_KEEP && backend->nat_keep;
	if (pool->family != (keep ? 0 : p->family))
		return CONTINUE;
	/* Read whole, as it is written: no packet gets half of a MAC that changes. */
	mac = *(const volatile u64 *)backend->mac;
	if (!(mac >> 48 & BACKEND_RESOLVED) || !nat_may_leave(p, backend->mtu) || !nat_saw_known(p, service, entry, slot))
		return CONTINUE;
	p->backend = place;
	port = backend_port(p, backend);
	source = keep ? p->source6 : pool->address;
	source_port = keep ? p->source_port : bpf_htons(slot & 0xffff);
	if (p->family == 4)
		stop = nat_rewrite_known4(p, source[0], backend->address[0], source_port, port);
	else
		stop = nat_rewrite_known6(p, source, backend->address, source_port, port);
	return stop ?: nat_send(p->data, p->end, p, mac, *(const u64 *)backend->source_mac, backend->ifindex, false);
}

/* A reply, found: likewise. */
static __always_inline int nat_reply_known(struct packet *p, u32 slot, struct nat_reply *reply)
{
	u64 mac = *(volatile u64 *)reply->mac, there;
	u32 ifindex = mac >> 56, families = p->family << 4 | p->family;
	struct nat_forward *forward;
	int stop;

	if (TRACE || (mac >> 48 & 0xff) != families)
		return CONTINUE;
	forward = p->family == 4 && ifindex ? NULL : nat_forward.lookup(&slot);
	if (forward)
		ifindex = forward->ifindex;
	else if (!ifindex)
		return CONTINUE;
	there = nat_interface_of(ifindex);
	if (!nat_may_leave(p, there >> 48))
		return CONTINUE;
	nat_saw_reply(p, reply);
	if (p->family == 4)
		stop = nat_rewrite_known4(p, reply->vip4, reply->client[0], reply->vip_port, reply->client_port);
	else if (forward)
		stop = nat_rewrite_known6(p, forward->vip, reply->client, reply->vip_port, reply->client_port);
	else
		stop = DROP_INTERNAL;
	return stop ?: nat_send(p->data, p->end, p, mac, there, ifindex, true);
}

/* The same of what comes from a backend of keep, if it is a reply. */
static __always_inline int nat_kept_known(struct packet *p)
{
	u64 hash = nat_hash(p->source6, p->vip6, nat_ports(p));
	struct nat_bucket *bucket = nat_bucket(hash);
	u32 slot = bucket ? nat_scan(bucket, nat_tag(hash), 0) & NAT_SLOT_MASK : 0;
	struct nat_reply *reply = nat_reply.lookup(&slot);

	return reply && nat_is_kept(reply, nat_tag(hash), p) ? nat_reply_known(p, slot, reply) : CONTINUE;
}
