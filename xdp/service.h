/* Stage service: is the packet for a VIP? The exact address before the prefix, the exact port before any port. */

static __always_inline struct service *lookup_service4(__be32 vip, __be16 port, u8 protocol)
{
	struct service4_key key = { .vip = vip, .port = port, .protocol = protocol };

	return services4.lookup(&key);
}

static __always_inline struct service *lookup_service6(const u32 *vip, u8 prefix, __be16 port, u8 protocol)
{
	struct service6_key key = { .port = port, .protocol = protocol, .prefix = prefix };

	__builtin_memcpy(key.vip, vip, 16);
	return services6.lookup(&key);
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
	return HAVE_VIP4 && lookup_service4(address, 0, 0);
}

static __always_inline bool is_vip6(const u32 *address)
{
	return HAVE_VIP6 && (lookup_service6(address, 0, 0, 0) || (HAVE_VIP_PREFIX && lookup_vip_prefix(address)));
}

static __always_inline bool is_for_vip(const struct packet *p)
{
	return p->family == 4 ? is_vip4(p->vip4) : is_vip6(p->vip6);
}

static __always_inline struct service *find_service4(const struct packet *p)
{
	struct service *service = lookup_service4(p->vip4, p->port, p->protocol);

	if (HAVE_ANY_PORT && !service)
		service = lookup_service4(p->vip4, 0, p->protocol);
	return service;
}

static __always_inline struct service *find_service6(const struct packet *p)
{
	struct service *service = lookup_service6(p->vip6, 0, p->port, p->protocol);
	struct vip_prefix *vip;

	if (HAVE_ANY_PORT && !service)
		service = lookup_service6(p->vip6, 0, 0, p->protocol);
	if (!HAVE_VIP_PREFIX || service)
		return service;
	vip = lookup_vip_prefix(p->vip6);
	if (!vip)
		return NULL;
	service = lookup_service6(vip->network, vip->length, p->port, p->protocol);
	if (HAVE_ANY_PORT && !service)
		service = lookup_service6(vip->network, vip->length, 0, p->protocol);
	return service;
}

static __always_inline int find_service(struct packet *p, struct service **found)
{
	struct service *service = NULL;

	if (p->fragment)
		return is_for_vip(p) ? DROP_FRAGMENT : PASS_FRAGMENT;
	if (!p->has_ports)
		return PASS_PROTOCOL;
	if (HAVE_VIP4 && p->family == 4)
		service = find_service4(p);
	if (HAVE_VIP6 && p->family == 6)
		service = find_service6(p);
	if (!service)
		return p->quoted ? PASS_ICMP_ERROR : PASS_NO_SERVICE;
	p->service_number = service->number;
	*found = service;
	return CONTINUE;
}
