/* NAT's index: how the entry of a flow is found, inserted and removed. Words are changed by compare-and-swap. */
struct nat_flow {
	struct nat_forward *forward; /* NULL: not found */
	struct nat_reply *reply;
	u32 slot;
};

/* The other bucket of a tag: from there the same leads back. */
static __always_inline u32 nat_other_bucket(u32 bucket, u64 tag)
{
	return bucket ^ ((u32)tag | 1);
}

static __always_inline u64 nat_word(u64 tag, u32 slot)
{
	return tag << NAT_SLOT_BITS | slot;
}

static __always_inline u64 nat_tag(u64 hash)
{
	return hash >> NAT_SLOT_BITS;
}

static __always_inline struct nat_bucket *nat_bucket(u32 number)
{
	number &= NAT_BUCKETS - 1;
	return nat_index.lookup(&number);
}

static __always_inline bool same_address(const u32 *a, const u32 *b)
{
	return word64(a) == word64(b) && word64(a + 2) == word64(b + 2);
}

static __always_inline u64 nat_ports(const struct packet *p)
{
	return ports_word(p) | (u64)p->family << 40;
}

/* The hash of a packet from one address and port to another. */
static __always_inline u64 nat_hash(const u32 *source, const u32 *destination, u64 ports)
{
	u64 h;

	if (ports >> 40 == 4)
		return mix(fold(FLOW_KEY0, source[0] | (u64)destination[0] << 32) ^ ports ^ FLOW_KEY1);
	h = fold(FLOW_KEY0, word64(source));
	h = fold(h, word64(source + 2));
	h = fold(h, word64(destination));
	h = fold(h, word64(destination + 2));
	return mix(h ^ ports ^ FLOW_KEY1);
}

/* Two words at most have one tag in a bucket, and both lead to what is no longer of it: chance, or an entry taken over. */
static __always_inline u64 nat_scan(const struct nat_bucket *bucket, u64 tag, u64 passed)
{
	u32 i;

#pragma clang loop unroll(disable) /* it stands in the program several times */
	for (i = 0; i < NAT_INDEX_WAYS; i++) {
		u64 word = bucket->word[i & (NAT_INDEX_WAYS - 1)];

		if (word >> NAT_SLOT_BITS == tag && word && word != passed)
			return word;
	}
	return 0;
}

static __always_inline bool nat_is_request(const struct nat_forward *entry, u64 word, const struct packet *p, u64 ports)
{
	if (entry->word != word || entry->ports != ports)
		return false;
	if (p->family == 4)
		return entry->client[0] == p->source4 && entry->vip[0] == p->vip4;
	return same_address(entry->client, p->source6) && same_address(entry->vip, p->vip6);
}

static __always_inline bool nat_is_reply(const struct nat_reply *entry, const struct packet *p)
{
	if ((entry->live & NAT_SLOT_MASK) != (p->source_port | (u32)p->protocol << 16) || !entry->live)
		return false;
	return p->family == 4 ? entry->backend[0] == p->source4 : same_address(entry->backend, p->source6);
}

/* A reply with keep: of this tag, from the backend to the client. */
static __always_inline bool nat_is_kept(const struct nat_reply *entry, u64 tag, const struct packet *p)
{
	if (entry->live >> NAT_SLOT_BITS != tag || !nat_is_reply(entry, p) || entry->client_port != p->port)
		return false;
	return p->family == 4 ? entry->client[0] == p->vip4 : same_address(entry->client, p->vip6);
}

/* The entry of a request (kept: of a reply with keep), as the index has it, the first in its order. but: not of this request. */
static __always_inline bool nat_find_but(const struct packet *p, u64 hash, bool kept, const struct packet *but,
					 struct nat_flow *flow)
{
	u64 tag = nat_tag(hash), ports = nat_ports(p), word = 0;
	u32 number = hash, i;

	flow->forward = NULL;
#pragma clang loop unroll(disable)
	for (i = 0; i < 4; i++) {
		struct nat_bucket *bucket;
		struct nat_forward *forward;
		struct nat_reply *reply;
		u32 slot;

		if (i == 2)
			number = nat_other_bucket(number, tag);
		if (i & 1 && !word)
			continue;
		bucket = nat_bucket(number);
		if (!bucket)
			return false;
		word = nat_scan(bucket, tag, i & 1 ? word : 0);
		if (!word)
			continue;
		slot = word & NAT_SLOT_MASK;
		forward = nat_forward.lookup(&slot);
		if (!forward)
			continue;
		if (!kept && !nat_is_request(forward, word, p, ports))
			continue;
		if (kept) {
			reply = nat_reply.lookup(&slot);
			if (!reply || !nat_is_kept(reply, tag, p))
				continue;
		}
		if (but && nat_is_request(forward, forward->word, but, nat_ports(but)))
			continue;
		flow->forward = forward;
		flow->slot = slot;
		return true;
	}
	return false;
}

static __always_inline bool nat_find(const struct packet *p, u64 hash, bool kept, struct nat_flow *flow)
{
	return nat_find_but(p, hash, kept, NULL, flow);
}

/* How many words of a bucket are taken, more than there are if one has this tag. Without branches, which the verifier would
 * walk in all combinations. */
static __always_inline u32 nat_count(const struct nat_bucket *bucket, u64 tag)
{
	u32 i, taken = 0;

#pragma unroll
	for (i = 0; i < NAT_INDEX_WAYS; i++) {
		u64 word = *(volatile const u64 *)&bucket->word[i];

		taken += 1 - is_zero(word) + (is_zero(word >> NAT_SLOT_BITS ^ tag) << 4);
	}
	return forget(taken, tag, 0xff);
}

/* Enters a word into the index: in its own bucket, or, if that is crowded, where fewer are. once: not if one has this tag, for
 * that may be the same flow's, of another CPU. Who sees none counts as the other did, and so comes behind it in one bucket. */
static __always_inline bool nat_publish(u64 hash, u32 slot, bool once)
{
	u64 tag = nat_tag(hash);
	u32 number = hash, i, taken, beside;
	struct nat_bucket *bucket = nat_bucket(number), *other = nat_bucket(nat_other_bucket(number, tag)), *swapped;

	if (!bucket || !other)
		return false;
	taken = nat_count(bucket, once ? tag : ~0ULL);
	beside = nat_count(other, once ? tag : ~0ULL);
	if (taken > NAT_INDEX_WAYS || beside > NAT_INDEX_WAYS)
		return false;
	if (taken >= NAT_CROWDED && beside < taken) {
		swapped = bucket;
		bucket = other;
		other = swapped;
	}
#pragma clang loop unroll(disable)
	for (i = 0; i < 2 * NAT_INDEX_WAYS; i++) {
		u64 *word = i < NAT_INDEX_WAYS ? &bucket->word[i & (NAT_INDEX_WAYS - 1)] : &other->word[i & (NAT_INDEX_WAYS - 1)];

		if (!*(volatile u64 *)word && !__sync_val_compare_and_swap(word, 0, nat_word(tag, slot)))
			return true;
	}
	return false;
}

/* Takes it out again. */
static __always_inline void nat_unpublish(u64 hash, u32 slot)
{
	u64 tag = nat_tag(hash), wanted = nat_word(tag, slot);
	u32 number = hash, i;
	struct nat_bucket *bucket = nat_bucket(number), *other = nat_bucket(nat_other_bucket(number, tag));

	if (!bucket || !other || TRACE)
		return;
#pragma clang loop unroll(disable)
	for (i = 0; i < 2 * NAT_INDEX_WAYS; i++) {
		u64 *word = i < NAT_INDEX_WAYS ? &bucket->word[i & (NAT_INDEX_WAYS - 1)] : &other->word[i & (NAT_INDEX_WAYS - 1)];

		if (*(volatile u64 *)word == wanted)
			__sync_val_compare_and_swap(word, wanted, 0);
	}
}
