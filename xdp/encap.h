/* Forwarding in an outer header: 4in4 (RFC 2003), 6in4 (RFC 4213), 4in6 and 6in6 (RFC 2473), or GUE, with UDP between.
 *
 * The frame grows at its head by the outer headers; VLAN tags move with the Ethernet header, so the frame leaves in the
 * VLAN it came from. Padding behind the packet is not counted in the outer length.
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

static __always_inline int encapsulate(struct xdp_md *ctx, struct packet *p, const struct backend *backend, bool gue)
{
	bool outer4 = backend->family == 4;
	u32 grown = encap_overhead(backend, gue), l3 = p->l3 & L3_MOST;
	void *data, *end, *outer;
	int stop;

	if (backend->mtu && p->l3_length + grown > backend->mtu)
		return HAVE_TOO_BIG ? answer_too_big(ctx, p, backend->mtu - grown) : DROP_TOO_BIG;
	if (bpf_xdp_adjust_head(ctx, -(int)grown))
		return DROP_NO_HEADROOM;
	stop = move_ethernet(ctx, grown, l3, outer4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6));
	if (stop)
		return stop;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (l3 > sizeof(struct ethhdr) + VLAN_TAGS_MAX * sizeof(struct vlan_tag))
		return DROP_INTERNAL;
	outer = data + l3;
	if (outer4) {
		if (outer + sizeof(struct iphdr) > end)
			return DROP_INTERNAL;
		write_outer4(outer, p, backend, gue);
		outer += sizeof(struct iphdr);
	} else {
		if (outer + sizeof(struct ipv6hdr) > end)
			return DROP_INTERNAL;
		write_outer6(outer, p, backend, gue);
		outer += sizeof(struct ipv6hdr);
	}
	if (gue) {
		if (outer + sizeof(struct udphdr) > end)
			return DROP_INTERNAL;
		write_gue(outer, p);
	}
	p->data = data;
	p->end = end;
	return CONTINUE;
}
