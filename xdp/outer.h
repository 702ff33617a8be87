/* What encapsulation writes in front of a packet: an outer IP header, and for GUE a UDP header after it.
 *
 * The packet path (encap.h) and the probes' program (probe.c) write the same.
 */
/* 16 bits that vary by flow and are the same on every node: the outer source spreads over the backend's receive queues. */
static __always_inline u32 encap_spread(const struct packet *p)
{
	u32 source = p->family == 4 ? p->source4 : p->source6[0] ^ p->source6[1] ^ p->source6[2] ^ p->source6[3];

	/* The top bits of a 64-bit product: every bit of source and port reaches even the lowest of the sixteen. */
	return (source ^ (u32)p->source_port << 16 ^ p->source_port) * 0x9e3779b97f4a7c15ULL >> 48;
}

static __always_inline u8 encap_protocol(const struct packet *p, bool gue)
{
	if (gue)
		return IPPROTO_UDP;
	/* The packet's own family, which p->family is: an ICMP error and what it quotes are of one. */
	return p->family == 4 ? IPPROTO_IPIP : IPPROTO_IPV6;
}

static __always_inline u32 encap_overhead(const struct backend *backend, bool gue)
{
	u32 outer = backend->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

	return gue ? outer + sizeof(struct udphdr) : outer;
}

static __always_inline void write_outer4(void *outer, const struct packet *p, const struct backend *backend, bool gue)
{
	__be32 source = bpf_htonl(ENCAP_SOURCE4 | (encap_spread(p) & ENCAP_SOURCE4_HOSTS));
	u16 length = p->l3_length + sizeof(struct iphdr) + (gue ? sizeof(struct udphdr) : 0);

	write_ipv4(outer, p->traffic_class, length, encap_protocol(p, gue), source, backend->address[0]);
}

static __always_inline void write_outer6(struct ipv6hdr *outer, const struct packet *p, const struct backend *backend, bool gue)
{
	u32 *address = (u32 *)&outer->saddr;

	*(__be32 *)outer = bpf_htonl(6U << 28 | (u32)p->traffic_class << 20);
	outer->payload_len = bpf_htons(p->l3_length + (gue ? sizeof(struct udphdr) : 0));
	outer->nexthdr = encap_protocol(p, gue);
	outer->hop_limit = OUTER_TTL;
	address[0] = ENCAP_SOURCE6_0;
	address[1] = ENCAP_SOURCE6_1;
	address[2] = ENCAP_SOURCE6_2;
	address[3] = bpf_htonl(encap_spread(p));
	__builtin_memcpy(&outer->daddr, backend->address, 16);
}

/* Generic UDP Encapsulation, variant 1: the IP packet follows directly. The checksum may be 0, for IPv6 by RFC 6935. */
static __always_inline void write_gue(struct udphdr *udp, const struct packet *p)
{
	udp->source = bpf_htons(0xc000 | encap_spread(p) >> 2); /* the dynamic ports, RFC 6335 */
	udp->dest = bpf_htons(GUE_PORT);
	udp->len = bpf_htons(p->l3_length + sizeof(*udp));
	udp->check = 0;
}
