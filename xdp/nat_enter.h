/* Where packets leave the first program for the second: which packets belong to NAT, and how they are handed over. */
#define HANDED_OVER (sizeof(struct packet) - offsetof(struct packet, frame_length)) /* all but pointers */

struct handover {
	u64 way; /* NAT_* << 32 | word */
	u64 former[2];   /* hashes of an entry that was taken over, its request's and, with keep, its reply's */
	u64 former_slot; /* 0: there is none */
	struct service service;
	u64 packet[HANDED_OVER / 8];
};

BPF_F_TABLE("percpu_array", u32, struct handover, handovers, 1, 0);

/* 1 + the block of a pool address, NAT_OF_KEEP for a backend of keep, or 0. */
static __always_inline u32 nat_look_up(const u32 *address, u8 family)
{
	u64 low = family == 4 ? address[0] : word64(address), high = family == 4 ? 4 : word64(address + 2);
	u64 hash = fold(fold(MIX1, low), high);
	u32 key = hash >> 55, i, found = 0;
	struct nat_line *line = nat_addresses.lookup(&key);
	struct nat_pool *pool;

	if (!line)
		return 0;
#pragma unroll
	for (i = 0; i < NAT_INDEX_WAYS; i++) {
		u64 word = line->word[i];

		if ((word ^ hash) >> 8 == 0 && word & 0xff) {
			found = word & 0xff;
			break;
		}
	}
	if (!found || found == NAT_OF_KEEP)
		return found;
	key = found - 1;
	pool = nat_pools.lookup(&key);
	if (!pool || pool->family != family || pool->address[0] != address[0])
		return 0;
	if (family == 6 && (pool->address[1] != address[1] || word64(pool->address + 2) != word64(address + 2)))
		return 0;
	return found;
}

/* The block of the pool address that a packet is for, or NONE. */
static __always_inline u32 nat_block(const struct packet *p)
{
	u32 found = nat_look_up(p->vip6, p->family);

	return found && found != NAT_OF_KEEP ? found - 1 : NONE;
}

static __always_inline bool nat_is_of_keep(const struct packet *p)
{
	return nat_look_up(p->source6, p->family) == NAT_OF_KEEP;
}

/* The slot whose backend sent this reply, or NONE. */
static __always_inline u32 nat_reply_slot(const struct packet *p, struct nat_reply **found)
{
	u32 block = nat_block(p), slot;
	struct nat_reply *entry;

	if (block == NONE)
		return NONE;
	slot = block << 16 | bpf_ntohs(p->port);
	entry = nat_reply.lookup(&slot);
	if (!entry || !entry->live || (entry->live & NAT_SLOT_MASK) != (p->source_port | (u32)p->protocol << 16))
		return NONE;
	if (entry->backend[0] != p->source6[0])
		return NONE;
	if (p->family == 6 && (entry->backend[1] != p->source6[1] || word64(entry->backend + 2) != word64(p->source6 + 2)))
		return NONE;
	*found = entry;
	return slot;
}

/* Hands the packet over. It comes back only if the second program is not there. */
static __always_inline int enter_nat(struct xdp_md *ctx, const struct packet *p, const struct service *service, u32 way, u32 word)
{
	u32 key = 0;
	struct handover *handover = handovers.lookup(&key);

	if (!handover)
		return DROP_INTERNAL;
	handover->way = (u64)way << 32 | word;
	if (service)
		handover->service = *service;
	__builtin_memcpy(handover->packet, &p->frame_length, HANDED_OVER);
	if (HAVE_FRAGS)
		stages_frags.call(ctx, STAGE_SLOT);
	else
		stages.call(ctx, STAGE_SLOT);
	return DROP_INTERNAL;
}
