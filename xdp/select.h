/* Stage select: which backend. The flow table for flows it knows, else the ring, which is then remembered.
 *
 * A SYN asks the ring and rewrites its entry: a reused port is a new connection. A RST is forwarded, and not remembered.
 */
static __always_inline u32 place_of(const struct service *service, u32 offset)
{
	return service->backends + offset;
}

static __always_inline struct backend *find_backend(u32 place)
{
	return backends.lookup(&place);
}

static __always_inline bool is_opening(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* The ring's choice as an offset in the service's places, or NONE. */
static __always_inline u32 ask_ring(const struct packet *p, const struct service *service)
{
	u32 slot = ring_slot(p, service->flags & SERVICE_SOURCE_AFFINITY), key = service->number;
	struct service_ring *in_use = service_rings.lookup(&key);
	struct cells *cells;

	if (!in_use)
		return NONE;
	key = *(volatile u32 *)&in_use->ring;
	if (!key)
		return NONE;
	key = key * RING_CELLS + (slot >> CELLS_SHIFT);
	cells = rings.lookup(&key);
	return cells ? cells->cell[slot & CELLS_MASK] : NONE;
}

static __always_inline void count_miss(bool evicted, bool tracked)
{
	u32 key = 0;
	struct flow_tally *tally = flow_counters.lookup(&key);

	if (!tally)
		return;
	tally->misses++;
	if (evicted)
		tally->evictions++;
	if (!tracked)
		tally->untracked++;
}

static __always_inline int select_backend(struct packet *p, const struct service *service, struct backend **chosen)
{
	u64 hash = flow_hash(p), tag = FLOW_TAG(hash), now_s = coarse_seconds(), state, wanted;
	struct flow_bucket *bucket = flow_bucket(hash);
	struct flow *flow;
	u32 offset;
	bool evicted;

	if (!bucket)
		return DROP_INTERNAL;
	flow = flow_find(bucket, tag);
	state = flow ? flow->state : 0;
	if (flow && is_of_service(state, service) && !is_opening(p)) {
		p->backend = place_of(service, flow->tag_backend & 0xffff);
		*chosen = find_backend(p->backend);
		if (*chosen && (*chosen)->state & BACKEND_ACTIVE && !is_idle(state, now_s)) {
			wanted = FLOW_STATE(now_s, service->number, FLOW_ESTABLISHED | flow_class(p));
			if (state != wanted)
				write_whole(&flow->state, wanted);
			return CONTINUE;
		}
	}
	offset = ask_ring(p, service);
	if (offset == NONE) {
		p->backend = NONE;
		return DROP_NO_BACKEND;
	}
	p->backend = place_of(service, offset);
	*chosen = find_backend(p->backend);
	if (!*chosen)
		return DROP_INTERNAL;
	if (p->tcp_flags & TCP_RST) {
		count_miss(false, true);
		return CONTINUE;
	}
	evicted = false;
	if (!flow) {
		flow = flow_victim(bucket, now_s);
		evicted = flow && flow->tag_backend && !is_idle(flow->state, now_s);
	}
	if (flow)
		flow_write(flow, tag, offset, FLOW_STATE(now_s, service->number, FLOW_PROBATION | flow_class(p)));
	count_miss(evicted, flow != NULL);
	return CONTINUE;
}
