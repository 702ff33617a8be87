/* Stage icmp: for VIPs, echo requests are answered or belong to a service, and errors follow the flow that they quote.
 *
 * ICMP (RFC 792) over IPv4, ICMPv6 (RFC 4443) over IPv6; any other pairing is just a protocol that is not balanced.
 */
struct icmp_header {
	u8 type;
	u8 code;
	__be16 checksum;
	__be32 rest;
};

struct port_pair {
	__be16 source;
	__be16 destination;
};

static __always_inline bool is_icmp(const struct packet *p)
{
	return p->protocol == (p->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

static __always_inline u8 echo_type(u8 family, bool reply)
{
	if (family == 4)
		return reply ? 0 : 8;
	return reply ? 129 : 128;
}

static __always_inline bool is_echo(const struct packet *p, const struct icmp_header *icmp, bool reply)
{
	return icmp->type == echo_type(p->family, reply) && icmp->code == 0;
}

static __always_inline __be16 echo_identifier(const struct icmp_header *icmp)
{
	return *(const __be16 *)&icmp->rest;
}

/* An echo's identifier stands for the client's port, and the other is 0; the verifier is not to know, or it walks what follows
 * for echo too. reply: as the backend sends it. */
static __always_inline void take_identifier(struct packet *p, const struct icmp_header *icmp, bool reply)
{
	u16 none = forget(0, p->frame_length, 0xffff), identifier = echo_identifier(icmp);

	p->source_port = reply ? none : identifier;
	p->port = reply ? identifier : none;
}

/* Whether it is an echo reply: then its identifier stands for the port that it is for. */
static __always_inline bool read_echo_reply(struct packet *p)
{
	u32 at = p->l4 & L4_MOST;
	struct icmp_header *icmp = p->data + at;

	if (p->fragment || !is_icmp(p) || at + sizeof(*icmp) > p->l3 + p->l3_length || (void *)(icmp + 1) > p->end)
		return false;
	if (!is_echo(p, icmp, true))
		return false;
	take_identifier(p, icmp, true);
	return true;
}

static __always_inline bool is_error(const struct packet *p, u8 type)
{
	return p->family == 4 ? type == 3 || type == 11 || type == 12 : type >= 1 && type <= 4;
}

/* But for "fragmentation needed", which only says that it was too big. */
static __always_inline bool is_unreachable(const struct packet *p, const struct icmp_header *icmp)
{
	return p->family == 4 ? icmp->type == 3 && icmp->code != 4 : icmp->type == 1;
}

/* Addresses are exchanged, which no checksum notices; type and TTL are what it must follow. Of a reply that is all zeros
 * the adjustment says 0, where receivers want 0xffff; to them the two are the same everywhere else. */
static __always_inline int answer_echo(struct packet *p, struct icmp_header *icmp)
{
	u16 *type = (u16 *)icmp, asked = *type;
	struct ethhdr *eth = p->data;
	u8 mac[ETH_ALEN];

	if ((void *)(eth + 1) > p->end)
		return DROP_INTERNAL;
	if (p->family == 4) {
		struct iphdr *ip = p->data + (p->l3 & L3_MOST);
		u16 *ttl = (u16 *)&ip->ttl, came = *ttl;

		if ((void *)(ip + 1) > p->end)
			return DROP_INTERNAL;
		ip->saddr = p->vip4;
		ip->daddr = p->source4;
		ip->ttl = OUTER_TTL;
		ip->check = checksum_adjusted(ip->check, came, *ttl);
		icmp->type = 0;
		icmp->checksum = checksum_adjusted(icmp->checksum, asked, *type) ?: 0xffff;
	} else {
		struct ipv6hdr *ip = p->data + (p->l3 & L3_MOST);

		if ((void *)(ip + 1) > p->end)
			return DROP_INTERNAL;
		__builtin_memcpy(&ip->saddr, p->vip6, 16);
		__builtin_memcpy(&ip->daddr, p->source6, 16);
		ip->hop_limit = OUTER_TTL;
		icmp->type = 129;
		icmp->checksum = checksum_adjusted(icmp->checksum, asked, *type);
	}
	__builtin_memcpy(mac, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, mac, ETH_ALEN);
	return TX_ECHO;
}

/* The same of an echo, whose identifier stands for the client's port. */
static __always_inline int become_echo_flow(struct packet *p, u32 at, bool request)
{
	struct icmp_header *icmp = p->data + at;

	if (at + sizeof(*icmp) > p->l3 + p->l3_length || (void *)(icmp + 1) > p->end || !is_echo(p, icmp, !request))
		return PASS_ICMP_ERROR;
	take_identifier(p, icmp, request);
	p->has_ports = true;
	p->quoted = QUOTED;
	return CONTINUE;
}

/* From here on the packet is one of the flow that a quote, turned round, belongs to. request: the quote is what goes to a
 * backend, not what comes from a VIP. */
static __always_inline int become_flow(struct packet *p, u32 at, u8 protocol, bool request)
{
	struct port_pair *ports = p->data + at;

	if (HAVE_NAT_ICMP && protocol == p->protocol)
		return become_echo_flow(p, at, request);
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return PASS_ICMP_ERROR;
	if (at + sizeof(*ports) > p->l3 + p->l3_length || (void *)(ports + 1) > p->end)
		return PASS_ICMP_ERROR;
	p->protocol = protocol;
	p->source_port = ports->destination;
	p->port = ports->source;
	p->has_ports = true;
	p->quoted = QUOTED;
	return CONTINUE;
}

static __always_inline int read_quote4(struct packet *p, u32 at, bool request)
{
	struct iphdr *quote = p->data + at;

	if (at + sizeof(*quote) > p->l3 + p->l3_length || (void *)(quote + 1) > p->end)
		return PASS_ICMP_ERROR;
	if (quote->version != 4 || quote->ihl < 5 || quote->saddr != p->vip4)
		return PASS_ICMP_ERROR;
	if (quote->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return PASS_ICMP_ERROR;
	p->source4 = quote->daddr;
	return become_flow(p, at + quote->ihl * 4, quote->protocol, request);
}

static __always_inline int read_quote6(struct packet *p, u32 at, bool request)
{
	struct ipv6hdr *quote = p->data + at;
	const u32 *source = (const u32 *)&quote->saddr;

	if (at + sizeof(*quote) > p->l3 + p->l3_length || (void *)(quote + 1) > p->end)
		return PASS_ICMP_ERROR;
	if (quote->version != 6 || source[0] != p->vip6[0] || source[1] != p->vip6[1] || source[2] != p->vip6[2] ||
	    source[3] != p->vip6[3])
		return PASS_ICMP_ERROR;
	__builtin_memcpy(p->source6, &quote->daddr, 16);
	return become_flow(p, at + sizeof(*quote), quote->nexthdr, request);
}

/* An echo request that no service takes. With options or extensions it would take more than an exchange of addresses: the
 * kernel answers these. */
static __always_inline int answer_request(struct packet *p)
{
	u32 header = p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr), at = p->l4 & L4_MOST;
	struct icmp_header *icmp = p->data + at;

	if (!HAVE_ECHO || at != p->l3 + header)
		return CONTINUE;
	if ((void *)(icmp + 1) > p->end)
		return DROP_INTERNAL;
	trace_stage(p, STAGE_ICMP);
	return answer_echo(p, icmp);
}

static __always_inline int read_icmp(struct packet *p)
{
	u32 at = p->l4 & L4_MOST;
	struct icmp_header *icmp = p->data + at;

	if (p->fragment || !is_icmp(p) || !is_for_vip(p))
		return CONTINUE;
	if (at + sizeof(*icmp) > p->l3 + p->l3_length || (void *)(icmp + 1) > p->end)
		return DROP_TRUNCATED;
	if (is_error(p, icmp->type)) {
		bool unreachable = HAVE_PASSIVE && is_unreachable(p, icmp);
		int verdict = p->family == 4 ? read_quote4(p, at + sizeof(*icmp), false) : read_quote6(p, at + sizeof(*icmp), false);

		if (unreachable && p->quoted)
			p->quoted = QUOTED_UNREACHABLE;
		return verdict;
	}
	if (!is_echo(p, icmp, false))
		return CONTINUE;
	if (!HAVE_NAT_ICMP)
		return answer_request(p);
	/* Whether a service takes it is for the next stage to find; its identifier stands for the client's port. */
	take_identifier(p, icmp, false);
	p->has_ports = true;
	return CONTINUE;
}
