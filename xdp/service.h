/* Stage service: is the packet for a VIP? Exact port first, then any port. */

/* Fragments have no (trustworthy) port: it only matters whether the address is a VIP. */
static __always_inline void ask_without_port(const struct packet *p, u16 *port, u8 *protocol)
{
	*port = p->fragment ? 0 : p->port;
	*protocol = p->fragment ? 0 : p->protocol;
}

static __always_inline struct service *find_service4(const struct packet *p)
{
	struct service4_key key = { .vip = p->vip4 };
	struct service *service;

	ask_without_port(p, &key.port, &key.protocol);
	service = services4.lookup(&key);
	if (HAVE_ANY_PORT && !service && !p->fragment) {
		key.port = 0;
		service = services4.lookup(&key);
	}
	return service;
}

static __always_inline struct service *find_service6(const struct packet *p)
{
	struct service6_key key = {};
	struct service *service;

	__builtin_memcpy(key.vip, p->vip6, 16);
	ask_without_port(p, &key.port, &key.protocol);
	service = services6.lookup(&key);
	if (HAVE_ANY_PORT && !service && !p->fragment) {
		key.port = 0;
		service = services6.lookup(&key);
	}
	return service;
}

static __always_inline int find_service(struct packet *p, struct service **found)
{
	struct service *service = NULL;

	if (!p->has_ports && !p->fragment)
		return PASS_PROTOCOL;
	if (HAVE_VIP4 && p->family == 4)
		service = find_service4(p);
	if (HAVE_VIP6 && p->family == 6)
		service = find_service6(p);
	if (p->fragment)
		return service ? DROP_FRAGMENT : PASS_FRAGMENT;
	if (!service)
		return PASS_NO_SERVICE;
	p->service_number = service->number;
	*found = service;
	return CONTINUE;
}
