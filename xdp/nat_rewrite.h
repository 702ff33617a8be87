/* The translation itself: new addresses and ports, the checksums adjusted by what changed (RFC 1624), and, across the
 * families, a new IP header (RFC 7915). All sums are of words as they lie in memory.
 */
/* What a checksum is adjusted by where a becomes b; below 2^34. */
static __always_inline u64 sum_change(u32 a, u32 b)
{
	return (u64)(u32)~a + b;
}

static __always_inline u64 sum_of(const u32 *address)
{
	return (u64)address[0] + address[1] + address[2] + address[3];
}

static __always_inline u64 sum_less(const u32 *address)
{
	return (u64)(u32)~address[0] + (u32)~address[1] + (u32)~address[2] + (u32)~address[3];
}

/* By what the sum over a pseudo-header changes; IPv4 addresses are 0 but for their first word. */
static __always_inline u64 addresses_change(const struct packet *p, const struct nat_tuple *to)
{
	return sum_less(p->source6) + sum_less(p->vip6) + sum_of(to->source) + sum_of(to->destination);
}

static __always_inline __be16 checksum_changed(__be16 check, u64 change)
{
	return checksum_folded((u16)~check + change);
}

/* Ports and checksum. addresses: by what the sum of the addresses changes. */
static __always_inline int nat_transport(void *data, const void *end, u32 at, const struct packet *p, const struct nat_tuple *to,
					 u64 addresses)
{
	struct tcphdr *tcp = data + at;
	struct udphdr *udp = data + at;
	u64 change = addresses + sum_change(p->source_port | (u32)p->port << 16, to->source_port | (u32)to->port << 16);

	if (p->protocol == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > end)
			return DROP_INTERNAL;
		*(u32 *)tcp = to->source_port | (u32)to->port << 16;
		tcp->check = checksum_changed(tcp->check, change);
		return CONTINUE;
	}
	if ((void *)(udp + 1) > end)
		return DROP_INTERNAL;
	*(u32 *)udp = to->source_port | (u32)to->port << 16;
	if (udp->check)
		udp->check = checksum_changed(udp->check, change) ?: 0xffff;
	return CONTINUE;
}

/* IP headers one hop on, between other addresses. addresses: by what the sum of these changes. */
static __always_inline int nat_header4(void *data, const void *end, const struct packet *p, const struct nat_tuple *to,
				       u64 addresses)
{
	struct iphdr *ip = data + (p->l3 & L3_MOST);
	u16 *ttl, came;

	if ((void *)(ip + 1) > end)
		return DROP_INTERNAL;
	ttl = (u16 *)&ip->ttl;
	came = *ttl;
	*ttl = came - 1; /* of both bytes the first, the lower */
	ip->check = checksum_changed(ip->check, addresses + (u16)~came + *ttl);
	ip->saddr = to->source[0];
	ip->daddr = to->destination[0];
	return CONTINUE;
}

static __always_inline int nat_header6(void *data, const void *end, const struct packet *p, const struct nat_tuple *to)
{
	struct ipv6hdr *ip = data + (p->l3 & L3_MOST);

	if ((void *)(ip + 1) > end)
		return DROP_INTERNAL;
	ip->hop_limit--;
	__builtin_memcpy(&ip->saddr, to->source, 16);
	__builtin_memcpy(&ip->daddr, to->destination, 16);
	return CONTINUE;
}

static __always_inline int nat_rewrite4(void *data, const void *end, const struct packet *p, const struct nat_tuple *to)
{
	u64 change = sum_change(p->source4, to->source[0]) + sum_change(p->vip4, to->destination[0]);

	return nat_header4(data, end, p, to, change) ?: nat_transport(data, end, p->l4 & L4_MOST, p, to, change);
}

static __always_inline int nat_rewrite6(void *data, const void *end, const struct packet *p, const struct nat_tuple *to)
{
	return nat_header6(data, end, p, to) ?: nat_transport(data, end, p->l4 & L4_MOST, p, to, addresses_change(p, to));
}

static __always_inline u8 ttl_of(const struct packet *p)
{
	u8 *ttl = p->data + (p->l3 & L3_MOST) + (p->family == 4 ? 8 : 7);

	return (void *)(ttl + 1) > p->end ? 0 : *ttl;
}

/* An IP header of the other family. payload: what follows it. */
static __always_inline int nat_write_header(void *header, const void *end, const struct packet *p, const struct nat_tuple *to,
					    u8 protocol, u8 ttl, u32 payload)
{
	if (to->family == 4) {
		u32 *word = header;

		if (header + sizeof(struct iphdr) > end)
			return DROP_INTERNAL;
		write_ipv4(word, p->traffic_class, payload + sizeof(struct iphdr), protocol, to->source[0], to->destination[0]);
		*(u8 *)(word + 2) = ttl;
		*(u16 *)((void *)word + 10) = checksum_changed(*(u16 *)((void *)word + 10), (u16)~(u16)OUTER_TTL + ttl);
		return CONTINUE;
	} else {
		struct ipv6hdr *ip = header;

		if ((void *)(ip + 1) > end)
			return DROP_INTERNAL;
		*(__be32 *)ip = bpf_htonl(6U << 28 | (u32)p->traffic_class << 20);
		ip->payload_len = bpf_htons(payload);
		ip->nexthdr = protocol;
		ip->hop_limit = ttl;
		__builtin_memcpy(&ip->saddr, to->source, 16);
		__builtin_memcpy(&ip->daddr, to->destination, 16);
		return CONTINUE;
	}
}

/* Makes room for an IP header of the other family in place of the one there, at the frame's head; tags move along. */
static __always_inline int nat_resize(struct xdp_md *ctx, struct packet *p, u8 family)
{
	u32 l3 = p->l3 & L3_MOST, had = (p->l4 & L4_MOST) - l3;
	u32 header = family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	__be16 type = family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	u64 tags;
	void *data;

	/* What stands between the MACs and the IP header, but for its last two bytes. */
	if (p->data + 20 > p->end)
		return DROP_INTERNAL;
	tags = *(u32 *)(p->data + 12) | (u64)*(u32 *)(p->data + 16) << 32;
	if (bpf_xdp_adjust_head(ctx, (int)had - (int)header))
		return DROP_NO_HEADROOM;
	data = (void *)(long)ctx->data;
	p->data = data;
	p->end = (void *)(long)ctx->data_end;
	if (data + sizeof(struct ethhdr) + 2 * sizeof(struct vlan_tag) > p->end)
		return DROP_INTERNAL;
	if (l3 == sizeof(struct ethhdr)) {
		*(__be16 *)(data + 12) = type;
		return CONTINUE;
	}
	*(u32 *)(data + 12) = tags;
	if (l3 == sizeof(struct ethhdr) + sizeof(struct vlan_tag)) {
		*(__be16 *)(data + 16) = type;
		return CONTINUE;
	}
	*(u32 *)(data + 16) = tags >> 32;
	*(__be16 *)(data + 20) = type;
	return CONTINUE;
}

/* To the other family. */
static __always_inline int nat_cross(struct xdp_md *ctx, struct packet *p, const struct nat_tuple *to)
{
	u32 l3 = p->l3 & L3_MOST, header = to->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	u32 payload = (l3 + p->l3_length - p->l4) & 0xffff;
	u64 change = addresses_change(p, to);
	u8 ttl = ttl_of(p) - 1;
	struct udphdr *udp = p->data + (p->l4 & L4_MOST);
	int stop;

	if (p->protocol == IPPROTO_UDP && to->family == 6 && ((void *)(udp + 1) > p->end || !udp->check))
		return DROP_NAT_UNTRANSLATABLE;
	stop = nat_resize(ctx, p, to->family);
	if (stop)
		return stop;
	stop = nat_write_header(p->data + l3, p->end, p, to, p->protocol, ttl, payload);
	if (stop)
		return stop;
	return nat_transport(p->data, p->end, l3 + header, p, to, change);
}

/* The packet as it leaves, but for its MACs. */
static __always_inline int nat_rewrite(struct xdp_md *ctx, struct packet *p, const struct nat_tuple *to)
{
	if (HAVE_NAT_CROSS && p->family != to->family)
		return nat_cross(ctx, p, to);
	return p->family == 4 ? nat_rewrite4(p->data, p->end, p, to) : nat_rewrite6(p->data, p->end, p, to);
}

/* Bytes that a packet would have more, once it is of a family; an error quotes a header of the other one too. */
static __always_inline s32 nat_growth(const struct packet *p, u8 family)
{
	s32 wider = (s32)(sizeof(struct ipv6hdr) - sizeof(struct iphdr)), grown;

	if (!HAVE_NAT_CROSS || p->family == family)
		return 0;
	grown = (s32)(family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) - (s32)((p->l4 - p->l3) & L4_MOST);
	if (p->quoted)
		grown += family == 4 ? -wider : wider;
	return grown;
}

/* A packet that cannot leave for its TTL or its length. mtu: of the way, 0: unknown. */
static __always_inline int nat_check_way(struct xdp_md *ctx, struct packet *p, u8 family, u32 mtu)
{
	s32 grown = nat_growth(p, family);

	if (ttl_of(p) <= 1)
		return DROP_TTL;
	if (mtu && (s32)p->l3_length + grown > (s32)mtu)
		return HAVE_TOO_BIG ? answer_too_big(ctx, p, (mtu - grown) & 0xffff) : DROP_TOO_BIG;
	return CONTINUE;
}
