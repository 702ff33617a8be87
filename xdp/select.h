/* Stage select: which backend. The one that a QUIC connection ID names, else the flow table's, else the ring's, which is
 * then remembered.
 *
 * A SYN consults the ring and rewrites its entry: a reused port is a new connection. A RST is forwarded, and not remembered.
 */
static __always_inline u32 place_of(const struct service *service, u32 offset)
{
	return service->backends + offset;
}

static __always_inline struct backend *find_backend(u32 place)
{
	return backends.lookup(&place);
}

/* The ring's choice as an offset in the service's places, or NONE. */
static __always_inline u32 ask_ring(const struct packet *p, const struct service *service)
{
	u32 slot = ring_slot(p, service->flags), key = service->number;
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

static __always_inline void count_new_flow(bool miss, bool evicted, bool tracked)
{
	u32 key = 0;
	struct flow_tally *tally = flow_counters.lookup(&key);

	if (!tally || TRACE)
		return;
	if (miss)
		tally->misses++;
	if (evicted)
		tally->evictions++;
	if (!tracked)
		tally->untracked++;
}

/* Writes the flow into its way, or else into a newcomer's place. miss: it was the ring that chose. */
static __always_inline void remember(struct flow_bucket *bucket, u32 way, u64 tag, u32 offset, u64 state, bool miss)
{
	bool evicted = false;

	if (way == FLOW_WAYS) {
		way = flow_victim(bucket, state >> 32);
		evicted = way != FLOW_WAYS && flow_rank(&bucket->way[forget(way, tag, FLOW_WAYS - 1)], state >> 32);
	}
	if (way != FLOW_WAYS)
		flow_write(&bucket->way[forget(way, tag, FLOW_WAYS - 1)], tag, offset, state);
	count_new_flow(miss, evicted, way != FLOW_WAYS);
}

/* Whether a flow may stay with the backend it has. */
static __always_inline bool may_stay(const struct service *service, const struct backend *backend)
{
	if (!(backend->state & BACKEND_ACTIVE))
		return false;
	return !(HAVE_UDP_MIGRATION && service->flags & SERVICE_UDP_MIGRATION) || backend->state & BACKEND_IN_RING;
}

static __always_inline u32 newcomer_class(const struct packet *p)
{
	return FLOW_PROBATION | flow_class(p) | (HAVE_GUARD && opens_tcp(p) ? FLOW_OPENED : 0);
}

/* A flow that is not known: the limits of new flows, then the guard. track: whether it may be remembered. */
static __always_inline int open_flow(struct packet *p, const struct service *service, bool *track)
{
	int verdict = CONTINUE;

	if (HAVE_LIMIT_FLOWS)
		verdict = ask_flow_limits(p);
	if (HAVE_GUARD && !verdict && service->flags & SERVICE_GUARD)
		verdict = ask_guard(p, track);
	return verdict;
}

static __always_inline int select_backend(struct packet *p, const struct service *service, struct backend **chosen)
{
	u64 hash = flow_hash(p), tag = FLOW_TAG(hash), now_s = coarse_seconds(), state = 0, known = 0, wanted;
	struct flow_bucket *bucket = flow_bucket(hash);
	struct flow *flow = NULL;
	bool track = true;
	u32 offset, way;
	int verdict;

	if (!bucket)
		return DROP_INTERNAL;
	way = flow_find(bucket, tag);
	if (way != FLOW_WAYS) {
		flow = &bucket->way[forget(way, tag, FLOW_WAYS - 1)];
		state = flow->state;
		/* Once, and after the state: a slot that another flow takes meanwhile shows so in its tag. */
		known = *(volatile u64 *)&flow->tag_backend;
		if (known >> 16 != tag)
			flow = NULL;
	}
	trace_entry(p, flow);
	if (HAVE_PASSIVE && flow)
		count_syn_retry(p, service, place_of(service, known & 0xffff), state, now_s);
	wanted = FLOW_STATE(now_s, service->number, FLOW_ESTABLISHED | flow_class(p));
	if (HAVE_QUIC && service->flags & SERVICE_QUIC && !p->quoted) {
		offset = ask_quic_id(p, service);
		if (offset != NONE) {
			trace_via(p, VIA_QUIC);
			p->backend = place_of(service, offset);
			*chosen = find_backend(p->backend);
			if (!flow || state != wanted || (known & 0xffff) != offset)
				remember(bucket, way, tag, offset, wanted, false);
			return *chosen ? CONTINUE : DROP_INTERNAL;
		}
	}
	if (flow && is_of_service(state, service) && !opens_tcp(p) && !is_idle(state, now_s)) {
		p->backend = place_of(service, known & 0xffff);
		*chosen = find_backend(p->backend);
		if (*chosen && may_stay(service, *chosen)) {
			trace_via(p, VIA_FLOW);
			wanted |= flow_end(p, state);
			if (state != wanted && !p->quoted) {
				write_whole(&flow->state, wanted);
				if (HAVE_GUARD && service->flags & SERVICE_GUARD && state & FLOW_OPENED)
					learn_source(p, service->number);
			}
			return CONTINUE;
		}
	} else if ((HAVE_LIMIT_FLOWS || HAVE_GUARD) && !p->quoted) {
		verdict = open_flow(p, service, &track);
		if (verdict)
			return verdict;
		track = forget(track, now_s, 1);
	}
	offset = ask_ring(p, service);
	if (offset == NONE) {
		p->backend = NONE;
		return DROP_NO_BACKEND;
	}
	trace_via(p, VIA_RING);
	p->backend = place_of(service, offset);
	*chosen = find_backend(p->backend);
	if (!*chosen)
		return DROP_INTERNAL;
	if (p->tcp_flags & TCP_RST || p->quoted || !track)
		count_new_flow(true, false, track);
	else
		remember(bucket, way, tag, offset, FLOW_STATE(now_s, service->number, newcomer_class(p)), true);
	return CONTINUE;
}
