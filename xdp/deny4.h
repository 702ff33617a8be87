/* The IPv4 blocklist: DIR-24-8, with the longer prefixes of a /24 in one cache line. lb/dataplane/deny4.py writes it. */

/* The longest of a /24's longer prefixes that holds the address, else what covers the /24. */
static __always_inline u32 deny4_longer(u32 address, u32 cell)
{
	u32 key = address >> 24, at = address >> 16 & 255, best = 0, entry, i;
	struct deny_runs *runs = deny4_runs.lookup(&key);
	struct deny_line *line;

	if (!runs)
		return 0;
	key = (runs->line[at] & 0xffffff) + (cell & ~DENY_LONGER);
	line = deny4_lines.lookup(&key);
	if (!line)
		return 0;
	if (line->word[1] >> 24 == DENY_DENSE) {
		struct deny_dense *dense;

		key = line->word[1] & 0xffffff;
		dense = deny4_dense.lookup(&key);
		return dense ? dense->entry[address & 255] : 0;
	}
	entry = line->word[0];
#pragma unroll
	for (i = 1; i < 16; i++) {
		u32 word = line->word[i];
		u32 bits = word & 255;

		if (!bits)
			break;
		if (bits > best && !(((word >> 8 ^ address) & 255) >> (8 - (bits & 15)))) {
			best = bits;
			entry = word >> 16;
		}
	}
	return entry;
}

static __always_inline u32 deny4_entry(u32 address)
{
	u32 key = address >> (8 + CELLS_SHIFT), cell;
	struct cells *cells = deny4_cells.lookup(&key);

	if (!cells)
		return 0;
	cell = cells->cell[address >> 8 & CELLS_MASK];
	return cell & DENY_LONGER ? deny4_longer(address, cell) : cell;
}
