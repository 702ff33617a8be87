/* New flows of a service that is guarded against floods: counted in peace; under attack, those of known sources pass, and
 * others are tested or held within the budget.
 */
#define KNOWN_TAG 0x3ffffe /* bits of a cell above the hour, shifted down; the lowest is always set: no cell is 0 */
#define KNOWN_AGE ((1 << KNOWN_AGE_BITS) - 1)
#define TEST_AGE ((1 << TEST_AGE_BITS) - 1)
#define LINE_CELLS 16

struct guard_look {
	struct service_guard *row;
	struct guard_tally *tally;
	bool attack;
	bool spent; /* the second's budget is */
};

/* Which cell of a line has this tag; where none has (found), which is free or the oldest. The highest score wins:
 * {has the tag, free, age, index}. */
static __always_inline u32 find_cell(const struct cell_line *line, u32 tag, u32 age_bits, u32 now, bool *found)
{
	u64 mask = (1 << age_bits) - 1, best = 0, i;

#pragma unroll
	for (i = 0; i < LINE_CELLS; i++) {
		u64 cell = line->cell[i], age = (now - cell & mask) | is_zero(cell) << age_bits;

		best = larger(best, is_zero((cell >> age_bits) ^ tag) << 32 | age << 4 | i);
	}
	*found = best >> 32;
	return best & (LINE_CELLS - 1);
}

static __always_inline u64 source_hash(const struct packet *p)
{
	return mix(fold(FLOW_KEY1, p->family == 4 ? p->source4 : word64(p->source6)) ^ FLOW_KEY0);
}

static __always_inline u32 coarse_hours(void)
{
	return coarse_seconds() / 3600;
}

static __always_inline struct cell_line *known_line(u64 hash)
{
	u32 key = hash & (KNOWN_LINES - 1);

	return known_sources.lookup(&key);
}

static __always_inline u32 known_tag(u64 hash)
{
	return (hash >> 32 & KNOWN_TAG) | 1;
}

static __always_inline bool is_known(const struct packet *p)
{
	u64 hash = source_hash(p);
	struct cell_line *line = known_line(hash);
	u32 hour = coarse_hours(), at;
	bool found;

	if (!line)
		return false;
	at = find_cell(line, known_tag(hash), KNOWN_AGE_BITS, hour, &found);
	return found && (hour - line->cell[at] & KNOWN_AGE) < KNOWN_HOURS;
}

/* The source is known from now on. */
static __always_inline void learn_source(const struct packet *p, u32 service)
{
	u64 hash = source_hash(p);
	struct cell_line *line = known_line(hash);
	u32 hour = coarse_hours(), tag = known_tag(hash), at;
	struct guard_tally *tally;
	bool found;

	if (!line || TRACE)
		return;
	at = find_cell(line, tag, KNOWN_AGE_BITS, hour, &found);
	if (!found) {
		tally = guard_counters.lookup(&service);
		if (tally)
			tally->learned++;
	}
	*(volatile u32 *)&line->cell[at] = tag << KNOWN_AGE_BITS | (hour & KNOWN_AGE);
}

/* A SYN of an unknown source: whether it is one that was dropped before, half a second to four seconds ago. */
static __always_inline bool is_sent_again(const struct packet *p)
{
	const struct tcphdr *tcp = p->data + (p->l4 & L4_MOST);
	u32 now = coarse_sixteenths() & TEST_AGE, key, tag, age;
	struct cell_line *line;
	volatile u32 *cell;
	bool found;
	u64 hash;

	if ((void *)(tcp + 1) > p->end)
		return false;
	hash = mix(flow_hash(p) ^ (u64)tcp->seq << 32 ^ FLOW_KEY1);
	tag = (hash >> 32 & (~0U >> TEST_AGE_BITS)) | 1;
	key = hash & (SYN_TEST_LINES - 1);
	line = syn_tests.lookup(&key);
	if (!line)
		return false;
	cell = &line->cell[find_cell(line, tag, TEST_AGE_BITS, now, &found)];
	age = now - *cell & TEST_AGE;
	if (found && age < TEST_SOONEST)
		return false;
	if (found && age <= TEST_LATEST) {
		if (!TRACE)
			*cell = 0;
		return true;
	}
	/* Who was dropped just before keeps its place: if all were displaced too soon, nobody could come in. */
	if (!found && *cell && age < TEST_KEPT)
		return false;
	if (!TRACE)
		*cell = tag << TEST_AGE_BITS | now;
	return false;
}

static __always_inline bool is_before(u32 now, u32 end)
{
	return (s32)(end - now) > 0;
}

/* Counts a new flow, asked for, not granted; begins an attack, and puts its end off. */
static __always_inline void count_opening(struct guard_look *look, u32 now)
{
	struct service_guard *row = look->row;
	u32 opened, until = row->attack_until, end = row->second + 1 + row->hold_s;
	bool put_off = row->second != now && row->opened > row->calm && is_before(row->second, until) && is_before(until, end);

	if (put_off)
		until = end;
	look->attack = is_before(now, until);
	if (TRACE) {
		opened = (row->second == now ? row->opened : 0) + 1;
		look->spent = opened > row->budget;
		look->attack |= look->spent;
		return;
	}
	if (row->second != now) {
		if (put_off)
			row->attack_until = until;
		row->before = row->second + 1 == now ? row->opened : 0;
		row->second = now;
		row->opened = 0;
	}
	__sync_fetch_and_add(&row->opened, 1); /* what it was before cannot be had of 32 bits */
	opened = *(volatile u32 *)&row->opened;
	look->spent = opened > row->budget;
	if (look->spent) {
		if (!look->attack) {
			__sync_fetch_and_add(&row->attacks, 1);
			row->attack_since = now;
		}
		row->attack_until = now + row->hold_s;
		look->attack = true;
	}
}

static __always_inline int guard_opening(const struct packet *p, struct guard_look *look, bool *track)
{
	if (is_known(p)) {
		trace_guard(p, GUARD_KNOWN);
		if (!TRACE)
			look->tally->known++;
		return CONTINUE;
	}
	if (p->protocol == IPPROTO_TCP && look->row->flags & GUARD_TEST) {
		if (is_sent_again(p)) {
			trace_guard(p, GUARD_PROVEN);
			if (!TRACE)
				look->tally->proven++;
			learn_source(p, p->service_number);
			return CONTINUE;
		}
		trace_guard(p, GUARD_TESTED);
		if (!TRACE)
			look->tally->tested++;
		return DROP_SYN_TEST;
	}
	if (look->spent) {
		trace_guard(p, GUARD_REFUSED);
		if (!TRACE)
			look->tally->refused++;
		return DROP_NEW_FLOW;
	}
	trace_guard(p, GUARD_WITHIN);
	*track = false;
	return CONTINUE;
}

/* A packet of a flow that is not known, for a guarded service. track: whether the flow may be remembered. */
static __always_inline int ask_guard(const struct packet *p, bool *track)
{
	u32 key = p->service_number, now = coarse_seconds();
	struct guard_look look = { .row = service_guards.lookup(&key), .tally = guard_counters.lookup(&key) };

	if (!look.row || !look.tally)
		return CONTINUE;
	if (p->protocol == IPPROTO_TCP && !opens_tcp(p)) {
		*track = !is_before(now, look.row->attack_until);
		return CONTINUE;
	}
	count_opening(&look, now);
	if (look.attack)
		return guard_opening(p, &look, track);
	trace_guard(p, GUARD_PEACE);
	return CONTINUE;
}
