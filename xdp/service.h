/* Stage service: is the packet for a VIP? The exact address before the prefix, the exact port before any port. */

/* A slot that is taken over by another key while it is read shows so in its key, read again after the service. Loads keep
 * their order on x86, and a writer clears the key first and writes it last. */
static __always_inline bool read_slot(const struct service *slot, const u64 *slot_key, u64 key, struct service *found)
{
	*(u64 *)found = *(volatile const u64 *)slot;
	return *(volatile const u64 *)slot_key == key;
}

static __always_inline bool lookup_service4(__be32 vip, __be16 port, u8 protocol, struct service *found)
{
	u64 word = vip | (u64)port << 32 | (u64)protocol << 48;
	u32 key = word * SERVICE4_MIX >> 32 & (SERVICE_BUCKETS - 1), way;
	struct service4_bucket *bucket = services4.lookup(&key);
	struct service *more;

	if (!bucket)
		return false;
	way = bucket->slot[0].key == word ? 0 : bucket->slot[1].key == word ? 1 : bucket->slot[2].key == word ? 2 : 3;
	way = forget(way, vip, 3);
	if (bucket->slot[way].key == word && read_slot(&bucket->slot[way].service, &bucket->slot[way].key, word, found))
		return true;
	if (bucket->slot[3].key != SERVICE_MORE)
		return false;
	more = services4_more.lookup((struct service4_key *)&word);
	if (more)
		*found = *more;
	return more != NULL;
}

static __always_inline bool lookup_service6(const u32 *vip, u8 prefix, __be16 port, u8 protocol, struct service *found)
{
	u64 high = word64(vip), low = word64(vip + 2);
	u64 word = port | (u64)protocol << 16 | (u64)prefix << 24 | SERVICE6_USED;
	u32 key = ((high ^ word) * SERVICE4_MIX ^ low) * SERVICE6_MIX >> 32 & (SERVICE_BUCKETS - 1), way;
	struct service6_bucket *bucket = services6.lookup(&key);
	struct service6_key wide = { .port = port, .protocol = protocol, .prefix = prefix };
	struct service6_slot *slot;
	struct service *more;

	if (!bucket)
		return false;
	slot = &bucket->slot[0];
	way = slot->key == word && slot->vip[0] == high && slot->vip[1] == low ? 0 : 1;
	slot = &bucket->slot[forget(way, vip[3], 1)];
	if (slot->key == word && read_slot(&slot->service, &slot->key, word, found) &&
	    *(volatile u64 *)&slot->vip[0] == high && *(volatile u64 *)&slot->vip[1] == low &&
	    *(volatile u64 *)&slot->key == word)
		return true;
	if (bucket->slot[1].key != SERVICE_MORE)
		return false;
	__builtin_memcpy(wide.vip, vip, 16);
	more = services6_more.lookup(&wide);
	if (more)
		*found = *more;
	return more != NULL;
}

/* Whether an address may be a VIP: false is certain. */
static __always_inline bool may_be_vip(u32 family_row, u64 address)
{
	u32 hash = address * SERVICE4_MIX >> 51;
	struct vip_bits *bits = vip_bits.lookup(&family_row);

	return bits && bits->word[hash >> 6] >> (hash & 63) & 1;
}

/* The longest VIP prefix that holds an address, or NULL. */
static __always_inline struct vip_prefix *lookup_vip_prefix(const u32 *address)
{
	struct prefix6_key key = { .length = 128 };

	__builtin_memcpy(key.address, address, 16);
	return vip_prefixes6.lookup(&key);
}

/* Port 0 with protocol 0 stands for the address itself. */
static __always_inline bool is_vip4(__be32 address)
{
	struct service none;

	return HAVE_VIP4 && may_be_vip(0, address) && lookup_service4(address, 0, 0, &none);
}

static __always_inline bool is_vip6(const u32 *address)
{
	struct service none;

	if (!HAVE_VIP6)
		return false;
	if (may_be_vip(1, word64(address) ^ word64(address + 2)) && lookup_service6(address, 0, 0, 0, &none))
		return true;
	return HAVE_VIP_PREFIX && lookup_vip_prefix(address);
}

static __always_inline bool is_for_vip(const struct packet *p)
{
	return p->family == 4 ? is_vip4(p->vip4) : is_vip6(p->vip6);
}

static __always_inline bool find_service4(const struct packet *p, struct service *found)
{
	if (lookup_service4(p->vip4, p->port, p->protocol, found))
		return true;
	return HAVE_ANY_PORT && lookup_service4(p->vip4, 0, p->protocol, found);
}

static __always_inline bool find_service6(const struct packet *p, struct service *found)
{
	struct vip_prefix *vip;

	if (lookup_service6(p->vip6, 0, p->port, p->protocol, found))
		return true;
	if (HAVE_ANY_PORT && lookup_service6(p->vip6, 0, 0, p->protocol, found))
		return true;
	if (!HAVE_VIP_PREFIX)
		return false;
	vip = lookup_vip_prefix(p->vip6);
	if (!vip)
		return false;
	if (lookup_service6(vip->network, vip->length, p->port, p->protocol, found))
		return true;
	return HAVE_ANY_PORT && lookup_service6(vip->network, vip->length, 0, p->protocol, found);
}

static __always_inline int find_service(struct packet *p, struct service *found)
{
	bool is_service = false;

	if (p->fragment)
		return is_for_vip(p) || (HAVE_NAT && nat_block(p) != NONE) ? DROP_FRAGMENT : PASS_FRAGMENT;
	if (!p->has_ports)
		return PASS_PROTOCOL;
	if (HAVE_VIP4 && p->family == 4)
		is_service = find_service4(p, found);
	if (HAVE_VIP6 && p->family == 6)
		is_service = find_service6(p, found);
	if (!is_service)
		return p->quoted ? PASS_ICMP_ERROR : PASS_NO_SERVICE;
	p->service_number = found->number;
	return CONTINUE;
}
