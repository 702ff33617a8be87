/* Rate limits: the generic cell rate algorithm (ITU-T I.371) with one word per bucket.
 *
 * A bucket is the time until which all that passed is paid for. Times are in ticks of the monotonic clock and
 * wrap after half a year: only differences count, and a bucket that seems much further ahead than a burst is an old one.
 */
#define LIMIT_TRIES 4
/* Ticks, a second: who read the clock so long before another CPU wrote sees a bucket that is ahead of a burst. */
#define LIMIT_LATE (1ULL << 40)

static __always_inline u64 ticks_now(void)
{
	return CLOCK_NS << LIMIT_TICK_SHIFT;
}

static __always_inline u64 ticks_ahead(u64 paid_until, u64 now, u64 burst)
{
	u64 ahead = paid_until - now;

	return ahead > burst + LIMIT_LATE ? 0 : ahead;
}

/* Whether these units fit; if so they are taken. Who is over pays nothing. */
static __always_inline bool take_units(u64 *paid_until, const struct rule_action *action, u64 units, u64 now)
{
	u64 cost = action->cost * units, burst = action->burst, before, after;
	int i;

#pragma unroll
	for (i = 0; i < LIMIT_TRIES; i++) {
		before = *(volatile u64 *)paid_until;
		after = ticks_ahead(before, now, burst) + cost;
		if (after > burst)
			return false;
		if (TRACE || __sync_val_compare_and_swap(paid_until, before, now + after) == before)
			return true;
	}
	return false;
}

/* The source's address, and what of it counts for this limit. */
static __always_inline u64 limit_key(const struct packet *p, const struct rule_action *action)
{
	u64 rule = FLOW_KEY1 ^ action->number * MIX1, high, low; /* multiplied, or it would undo a bit of the address */

	if (p->family == 4)
		return mix(fold(FLOW_KEY0 ^ rule, bpf_ntohl(p->source4) & ~(u32)(0xffffffffULL >> (action->length4 & 63))));
	high = __builtin_bswap64(word64(p->source6));
	low = __builtin_bswap64(word64(p->source6 + 2));
	if (action->length6 <= 64) {
		low = 0;
		high &= action->length6 == 64 ? ~0ULL : ~(~0ULL >> (action->length6 & 63));
	} else if (action->length6 < 128) {
		low &= ~(~0ULL >> (action->length6 - 64 & 63));
	}
	return mix(fold(fold(FLOW_KEY0 ^ rule, high) ^ 6, low));
}

/* Adds to one cell; what it then says of this second. */
static __always_inline u32 add_to_cell(u32 index, u32 units, u32 second)
{
	struct limit_cell *cell = limit_sketch.lookup(&index);
	u32 seen;

	if (!cell)
		return 0;
	seen = cell->second == second ? cell->units : 0;
	if (TRACE)
		return seen + units;
	if (cell->second != second) {
		cell->units = 0;
		cell->second = second;
	}
	__sync_fetch_and_add(&cell->units, units);
	return seen + units;
}

/* Units that the sketch has seen in this second, these included: never too few (Cormode and Muthukrishnan 2005). */
static __always_inline u32 sketch_units(u64 hash, u32 units)
{
	u32 second = coarse_seconds();
	u32 first = add_to_cell(hash & (LIMIT_CELLS - 1), units, second);
	u32 other = add_to_cell(LIMIT_CELLS + (hash >> 16 & (LIMIT_CELLS - 1)), units, second);

	return first < other ? first : other;
}

/* The slot of a source that has one; else, if it is heavy, that with the least to forget becomes its own. NULL: neither.
 * The highest score wins: {is the source's, how little ahead of the clock it is, index}.
 * heavy: it would have one, but for TRACE. */
static __always_inline struct limit_slot *find_slot(const struct rule_action *action, u64 hash, u32 units, u64 now, bool *heavy)
{
	u64 key = hash << 16 | action->number, best = 0, i;
	u32 index = (hash >> 48 ^ hash >> 32) & (LIMIT_BUCKETS - 1), seen;
	struct limit_bucket *bucket = limit_buckets.lookup(&index);
	struct limit_slot *slot;

	if (!bucket)
		return NULL;
	key |= is_zero(key) << 16;
#pragma unroll
	for (i = 0; i < LIMIT_WAYS; i++) {
		u64 held = bucket->way[i].key, ahead = bucket->way[i].paid_until - now;

		ahead &= ~((s64)ahead >> 63) & (is_zero(held) - 1);
		best = larger(best, is_zero(held ^ key) << 61 | ((1ULL << 58) - 1 - (ahead >> 6)) << 2 | i);
	}
	slot = &bucket->way[best & (LIMIT_WAYS - 1)];
	if (best >> 61)
		return slot;
	seen = sketch_units(hash, units);
	*heavy = seen > action->heavy;
	if (!*heavy || TRACE)
		return NULL;
	write_whole(&slot->paid_until, now + action->cost * action->heavy);
	write_whole(&slot->key, key);
	return slot;
}

/* Whether a packet is over its rule's limit. units: what it counts for. */
static __always_inline bool is_over(const struct packet *p, const struct rule_action *action, u32 units)
{
	u64 now;

	if (HAVE_LIMIT_SOURCE && action->length4 != LIMIT_TOTAL) {
		struct limit_slot *slot;
		bool heavy = false;

		now = ticks_now();
		slot = find_slot(action, limit_key(p, action), units, now, &heavy);
		if (TRACE && !slot)
			return heavy && action->cost * (action->heavy + units) > action->burst;
		return slot && !take_units(&slot->paid_until, action, units, now);
	} else {
		u32 key = action->number;
		struct limit_total *total = limit_totals.lookup(&key);

		now = ticks_now();
		return total && !take_units(&total->paid_until, action, units, now);
	}
}
