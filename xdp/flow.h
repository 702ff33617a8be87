/* The flow table: which backend a flow had, so that it stays there while the ring changes.
 *
 * One array for all CPUs; a flow's bucket is one cache line of four slots. tag_backend is read and written whole, so
 * there are no locks; two CPUs that write one slot at once leave one of the two entries, never a mixture. It is a cache
 * for continuity: without an entry the ring answers, the same on every node.
 *
 * Who may be evicted: a slot that is empty, idle or closed, then the newcomer (FLOW_PROBATION) seen longest ago, then an
 * established flow that has been silent for FLOW_PROTECT_S. A flood of new flows thus evicts only other newcomers.
 */
#define FLOW_STATE(seconds, service, class) ((u64)(seconds) << 32 | (u64)(service) << 16 | (class))
#define FLOW_KEPT ~0ULL
#define FLOW_TAG(hash) ((hash) >> 16 | 1) /* never 0, the empty slot; the bit that is lost is one of the bucket's index */

/* One store, not several: the compiler may neither split it nor leave it out. */
static __always_inline void write_whole(u64 *word, u64 value)
{
	if (!TRACE)
		*(volatile u64 *)word = value;
}

static __always_inline struct flow_bucket *flow_bucket(u64 hash)
{
	/* The index's bits and the tag's overlap by a few: together they still hold all 64 bits of the hash. */
	u32 key = hash & (FLOW_BUCKETS - 1);

	return flows.lookup(&key);
}

static __always_inline u32 flow_class(const struct packet *p)
{
	return p->protocol == IPPROTO_UDP ? FLOW_UDP : 0;
}

/* Seconds since a flow was seen. Below zero where another CPU stamped it with a second that this packet, whose clock
 * was read before, has not reached: as fresh as can be. */
static __always_inline s64 flow_age(u64 state, u64 now_s)
{
	return now_s - (state >> 32);
}

static __always_inline bool is_idle(u64 state, u64 now_s)
{
	return flow_age(state, now_s) > (s64)(state & FLOW_UDP ? UDP_IDLE_S : TCP_IDLE_S);
}

/* Whether nothing more is to be expected of a flow. What comes all the same still finds its entry. */
static __always_inline bool has_ended(u64 state, u64 now_s)
{
	return is_idle(state, now_s) || (state & FLOW_CLOSED && flow_age(state, now_s) > FLOW_CLOSED_S);
}

/* What a packet makes of whether its flow is closed: FIN and RST close it, and what follows them opens nothing. */
static __always_inline u32 flow_end(const struct packet *p, u64 state)
{
	return p->tcp_flags & (TCP_FIN | TCP_RST) ? FLOW_CLOSED : state & FLOW_CLOSED;
}

/* A place means something within its service's block alone: a flow of another service (an exact port was put over any
 * port, a service took the VIP of one removed) is not known. */
static __always_inline bool is_of_service(u64 state, const struct service *service)
{
	return (state >> 16 & 0xffff) == service->number;
}

/* The way whose slot has this tag, or FLOW_WAYS. */
static __always_inline u32 flow_find(const struct flow_bucket *bucket, u64 tag)
{
	if (bucket->way[0].tag_backend >> 16 == tag)
		return 0;
	if (bucket->way[1].tag_backend >> 16 == tag)
		return 1;
	if (bucket->way[2].tag_backend >> 16 == tag)
		return 2;
	if (bucket->way[3].tag_backend >> 16 == tag)
		return 3;
	return FLOW_WAYS;
}

/* Who is evicted first: the lowest. An empty slot, or one whose flow is over, 0, a newcomer by when seen, then the established. */
static __always_inline u64 flow_rank(const struct flow *flow, u64 now_s)
{
	u64 state = flow->state;

	if (!flow->tag_backend || has_ended(state, now_s))
		return 0;
	if (!(state & FLOW_ESTABLISHED))
		return 1 + (state >> 32);
	return flow_age(state, now_s) <= FLOW_PROTECT_S ? FLOW_KEPT : 1ULL << 33 | state >> 32;
}

/* The way a newcomer may take, or FLOW_WAYS. */
static __always_inline u32 flow_victim(const struct flow_bucket *bucket, u64 now_s)
{
	u64 lowest = FLOW_KEPT;
	u32 victim = FLOW_WAYS, i;

#pragma unroll
	for (i = 0; i < FLOW_WAYS; i++) {
		u64 rank = flow_rank(&bucket->way[i], now_s);

		asm volatile("" : "+r"(rank));
		if (rank < lowest) {
			lowest = rank;
			victim = i;
		}
	}
	return victim;
}

/* The state word first, then the tag: a reader that finds the tag finds its state. */
static __always_inline void flow_write(struct flow *flow, u64 tag, u32 place, u64 state)
{
	write_whole(&flow->state, state);
	write_whole(&flow->tag_backend, tag << 16 | place);
}
