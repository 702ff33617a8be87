/* Which rules match a packet: for each field that some rule names, the set of rules that match the packet's value; then the
 * intersection of all sets (Lakshman and Stiliadis, SIGCOMM 1998; the summary word is Baboescu and Varghese's, 2001).
 */
struct rule_rows {
	const struct rule_set *row[RULE_FIELDS];
	u32 bank;
	u64 some; /* words in which all rows have something */
};

static __always_inline const struct rule_set *rule_row(u32 bank, u32 field, u32 class)
{
	u32 key = (bank * RULE_FIELDS + field) * RULE_CLASSES + (class & (RULE_CLASSES - 1));

	return rule_sets.lookup(&key);
}

static __always_inline u32 rule_cell(u32 bank, u32 cell)
{
	u32 key = bank * RULE_CELLS_VALUES + (cell >> CELLS_SHIFT);
	struct cells *cells = rule_cells.lookup(&key);

	return cells ? cells->cell[cell & CELLS_MASK] : 0;
}

static __always_inline u32 source_class(const struct packet *p, u32 bank)
{
	struct rule_classes *found;

	if (p->family == 4) {
		struct prefix4_key key = { .length = 32, .address = p->source4 };

		found = rule_sources4.lookup(&key);
	} else {
		struct prefix6_key key = { .length = 128 };

		__builtin_memcpy(key.address, p->source6, 16);
		found = rule_sources6.lookup(&key);
	}
	return found ? found->in[bank & 1] : 0;
}

static __always_inline u32 destination_class(const struct packet *p, u32 bank)
{
	struct rule_classes *found;

	if (p->family == 4) {
		struct prefix4_key key = { .length = 32, .address = p->vip4 };

		found = rule_targets4.lookup(&key);
	} else {
		struct prefix6_key key = { .length = 128 };

		__builtin_memcpy(key.address, p->vip6, 16);
		found = rule_targets6.lookup(&key);
	}
	return found ? found->in[bank & 1] : 0;
}

static __always_inline u32 rule_kind(const struct packet *p)
{
	u32 kind = p->protocol == IPPROTO_TCP && p->has_ports ? RULE_KIND_TCP + p->tcp_flags : p->protocol;

	if (p->fragment)
		kind += p->l4 ? RULE_KIND_FIRST : RULE_KIND_LATER;
	return kind;
}

static __always_inline u32 port_class(const struct packet *p, u32 bank, u32 cells, __be16 port)
{
	return p->has_ports ? rule_cell(bank, cells + bpf_ntohs(port)) : 0;
}

/* The rows of this packet; false if a table has no such row, which cannot be. */
static __always_inline bool find_rows(const struct packet *p, struct rule_rows *rows)
{
	u32 zero = 0, bank;
	struct rule_bank *in_use = rule_bank.lookup(&zero);

	if (!in_use)
		return false;
	bank = *(volatile u32 *)&in_use->bank & 1;
	rows->bank = bank;
	rows->some = ~0ULL;
#define FIND_ROW(have, field, class) \
	if (have) { \
		const struct rule_set *row = rule_row(bank, field, class); \
\
		if (!row) \
			return false; \
		rows->row[field] = row; \
		rows->some &= row->some; \
	}
	FIND_ROW(HAVE_RULE_SOURCE, RULE_SOURCE, source_class(p, bank))
	FIND_ROW(HAVE_RULE_DESTINATION, RULE_DESTINATION, destination_class(p, bank))
	FIND_ROW(HAVE_RULE_SOURCE_PORT, RULE_SOURCE_PORT, port_class(p, bank, RULE_CELLS_SOURCE_PORT, p->source_port))
	FIND_ROW(HAVE_RULE_PORT, RULE_PORT, port_class(p, bank, RULE_CELLS_PORT, p->port))
	FIND_ROW(HAVE_RULE_LENGTH, RULE_LENGTH, rule_cell(bank, RULE_CELLS_LENGTH + p->l3_length))
	FIND_ROW(true, RULE_KIND, rule_cell(bank, RULE_CELLS_KIND + rule_kind(p)))
	return true;
}

/* The number of the lowest bit that is set, 64 for none: how many bits are below it, counted in parallel. */
static __always_inline u32 lowest_bit(u64 some)
{
	u64 below = ~some & (some - 1);

	below -= below >> 1 & 0x5555555555555555ULL;
	asm volatile("" : "+r"(below)); /* or the compiler sees through it, and has no instruction for what it sees */
	below = (below & 0x3333333333333333ULL) + (below >> 2 & 0x3333333333333333ULL);
	below = below + (below >> 4) & 0x0f0f0f0f0f0f0f0fULL;
	return below * 0x0101010101010101ULL >> 56;
}

/* The rules of one word that match. */
static __always_inline u64 common_rules(const struct rule_rows *rows, u32 word)
{
	u64 common = rows->row[RULE_KIND]->word[word];

	if (HAVE_RULE_SOURCE)
		common &= rows->row[RULE_SOURCE]->word[word];
	if (HAVE_RULE_DESTINATION)
		common &= rows->row[RULE_DESTINATION]->word[word];
	if (HAVE_RULE_SOURCE_PORT)
		common &= rows->row[RULE_SOURCE_PORT]->word[word];
	if (HAVE_RULE_PORT)
		common &= rows->row[RULE_PORT]->word[word];
	if (HAVE_RULE_LENGTH)
		common &= rows->row[RULE_LENGTH]->word[word];
	return common;
}
