/* Two hashes of a flow, and the clock.
 *
 * flow_hash() is keyed and secret: it places flows in the flow table, where nobody may aim.
 * ring_hash() is public and fixed: every node with the same desired state picks the same backend. lb/reconcile/ring.py
 * computes it too; tests/xdp compares the two.
 * Both mix with the finalizer of MurmurHash3 (Appleby, public domain): multiply, xor-shift.
 */
#define MIX0 0xff51afd7ed558ccdULL
#define MIX1 0xc4ceb9fe1a85ec53ULL

static __always_inline u64 mix(u64 h)
{
	h ^= h >> 33;
	h *= MIX0;
	h ^= h >> 33;
	h *= MIX1;
	h ^= h >> 33;
	return h;
}

/* Folds two words into one: each bit of both reaches the high half, which the next multiplication takes on. */
static __always_inline u64 fold(u64 h, u64 word)
{
	h = (h ^ word) * MIX0;
	return h ^ h >> 32;
}

static __always_inline u64 word64(const u32 *half)
{
	return half[0] | (u64)half[1] << 32;
}

static __always_inline u64 hash_tuple(const struct packet *p, u64 key0, u64 key1, u64 ports)
{
	u64 h;

	if (p->family == 4)
		return mix(fold(key0, p->source4 | (u64)p->vip4 << 32) ^ ports ^ key1);
	h = fold(key0, word64(p->source6));
	h = fold(h, word64(p->source6 + 2));
	h = fold(h, word64(p->vip6));
	h = fold(h, word64(p->vip6 + 2));
	return mix(h ^ ports ^ key1);
}

static __always_inline u64 ports_word(const struct packet *p)
{
	return p->source_port | (u64)p->port << 16 | (u64)p->protocol << 32;
}

static __always_inline u64 flow_hash(const struct packet *p)
{
	return hash_tuple(p, FLOW_KEY0, FLOW_KEY1, ports_word(p));
}

#define RING_KEY 0x736c756963652e31ULL /* "sluice.1" */

/* The slot of a ring, 0 to RING_SLOTS - 1. What the service's affinity leaves out does not count. */
static __always_inline u32 ring_slot(const struct packet *p, u8 service_flags)
{
	u64 h;

	if (HAVE_PORT_AFFINITY && service_flags & SERVICE_PORT_AFFINITY) {
		h = mix(p->port ^ RING_KEY);
	} else if (HAVE_SOURCE_AFFINITY && service_flags & SERVICE_SOURCE_AFFINITY) {
		if (p->family == 4)
			h = mix(p->source4 ^ RING_KEY);
		else
			h = mix(fold(RING_KEY, word64(p->source6)) ^ word64(p->source6 + 2));
	} else {
		h = hash_tuple(p, RING_KEY, 0, ports_word(p));
	}
	return (h >> 32) * RING_SLOTS >> 32;
}

/* Seconds, from some moment before boot on: lb/dataplane/clock.py tells Python the same. A load and a multiplication,
 * where even the coarse clock is a call. */
static __always_inline u64 coarse_seconds(void)
{
	return (u64)JIFFIES * JIFFY_SHARE >> 32;
}
