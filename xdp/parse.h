/* Stage parse: what the frame is. Fills struct packet, bounds-checks every byte that is read, and lets nothing that
 * it does not understand slip past admit() as something else.
 */
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV6_FRAGMENT_OFFSET 0xfff8
#define IPV6_MORE_FRAGMENTS 0x0001

struct ipv6_extension {
	u8 next_header;
	u8 length; /* in 8 octets beyond the first 8; for AH in 4 octets beyond the first 8 (RFC 4302) */
	__be16 fragment;
	__be32 id;
};

static __always_inline u32 frame_length(struct xdp_md *ctx)
{
	if (HAVE_FRAGS)
		return bpf_xdp_get_buff_len(ctx);
	return ctx->data_end - ctx->data;
}

/* The MAC is compared as one u32 and one u16: the constants are its bytes as they lie in memory. */
static __always_inline bool is_ours(const struct packet *p)
{
	return *(const u32 *)p->data == OUR_MAC_FIRST4 && *(const u16 *)(p->data + 4) == OUR_MAC_LAST2;
}

/* The mask tells older verifiers (Linux 6.1) what others know: what is spilled by half a word they forget. */
static __always_inline int parse_tcp(struct packet *p)
{
	u64 offset = p->l4 & L4_MOST, end = (u64)p->l3 + p->l3_length, length;
	struct tcphdr *tcp = p->data + offset;

	if ((void *)(tcp + 1) > p->end || end < offset + sizeof(*tcp))
		return DROP_TRUNCATED;
	length = tcp->doff * 4;
	if (length < sizeof(*tcp) || offset + length > end)
		return DROP_BAD_TCP;
	p->source_port = tcp->source;
	p->port = tcp->dest;
	p->tcp_flags = ((u8 *)tcp)[13];
	p->has_ports = true;
	return CONTINUE;
}

static __always_inline int parse_udp(struct packet *p)
{
	u64 offset = p->l4 & L4_MOST;
	struct udphdr *udp = p->data + offset;

	if ((void *)(udp + 1) > p->end || (u64)p->l3 + p->l3_length < offset + sizeof(*udp))
		return DROP_TRUNCATED;
	p->source_port = udp->source;
	p->port = udp->dest;
	p->has_ports = true;
	return CONTINUE;
}

static __always_inline int parse_ipv4(struct packet *p)
{
	struct iphdr *ip = p->data + p->l3;
	u32 header, fragment;

	if ((void *)(ip + 1) > p->end)
		return DROP_TRUNCATED;
	header = ip->ihl * 4;
	p->l3_length = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || p->l3_length < header)
		return DROP_BAD_IPV4;
	if (p->l3 + p->l3_length > p->frame_length)
		return DROP_TRUNCATED;
	p->family = 4;
	p->protocol = ip->protocol;
	p->traffic_class = ip->tos;
	p->source4 = ip->saddr;
	p->vip4 = ip->daddr;
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))
		p->fragment = true;
	if (!(fragment & IPV4_FRAGMENT_OFFSET))
		p->l4 = p->l3 + header;
	return CONTINUE;
}

/* Walks the extension headers (RFC 8200, RFC 4302), so that none of them hides a TCP or UDP header. */
static __always_inline int parse_ipv6(struct packet *p)
{
	struct ipv6hdr *ip = p->data + p->l3;
	u32 offset = p->l3 + sizeof(*ip);
	u8 next;
	int i;

	if ((void *)(ip + 1) > p->end)
		return DROP_TRUNCATED;
	if (ip->version != 6)
		return DROP_BAD_IPV6;
	/* Beyond u16 is no packet of this machine's: payload_len 0 with a jumbo option (RFC 2675) ends up truncated. */
	if (bpf_ntohs(ip->payload_len) > 0xffff - sizeof(*ip))
		return DROP_BAD_IPV6;
	p->l3_length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (p->l3 + p->l3_length > p->frame_length)
		return DROP_TRUNCATED;
	p->family = 6;
	p->traffic_class = bpf_ntohs(*(__be16 *)ip) >> 4;
	__builtin_memcpy(p->source6, &ip->saddr, 16);
	__builtin_memcpy(p->vip6, &ip->daddr, 16);
	next = ip->nexthdr;
#pragma unroll
	for (i = 0; i <= IPV6_EXTENSIONS_MAX; i++) {
		struct ipv6_extension *extension;

		p->protocol = next;
		p->l4 = offset;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_AH && next != IPPROTO_FRAGMENT)
			return CONTINUE;
		if (i == IPV6_EXTENSIONS_MAX)
			return DROP_IPV6_CHAIN;
		extension = p->data + offset;
		if ((void *)(extension + 1) > p->end || offset + 8 > p->l3 + p->l3_length)
			return DROP_TRUNCATED;
		next = extension->next_header;
		if (p->protocol == IPPROTO_FRAGMENT) {
			u32 fragment = bpf_ntohs(extension->fragment);

			offset += 8;
			if (fragment & (IPV6_FRAGMENT_OFFSET | IPV6_MORE_FRAGMENTS))
				p->fragment = true;
			if (fragment & IPV6_FRAGMENT_OFFSET) {
				p->protocol = next;
				p->l4 = 0;
				return CONTINUE;
			}
		} else if (p->protocol == IPPROTO_AH) {
			offset += (extension->length + 2) * 4;
		} else {
			offset += (extension->length + 1) * 8;
		}
		/* An extension that is cut off, whatever would follow it. */
		if (offset > p->l3 + p->l3_length)
			return DROP_TRUNCATED;
		offset = forget(offset, p->source6[0], L4_MOST);
	}
	return DROP_IPV6_CHAIN;
}

static __always_inline int parse(struct xdp_md *ctx, struct packet *p)
{
	struct ethhdr *eth;
	u32 type;
	int i, stop;

	p->data = (void *)(long)ctx->data;
	p->end = (void *)(long)ctx->data_end;
	p->frame_length = frame_length(ctx);
	p->l4 = 0;
	p->marks = 0;
	p->backend = NONE;
	p->service_number = NONE;
	if (HAVE_SAMPLES || HAVE_BANS) {
		p->entry = 0;
		p->rule = NONE;
		p->family = 0;
	}
	if (HAVE_LIMIT_FLOWS)
		p->flow_limits = forget_all(0, unknown_word(p));
	eth = p->data;
	if ((void *)(eth + 1) > p->end)
		return DROP_TRUNCATED;
	if (!is_ours(p))
		return PASS_NOT_OUR_MAC;
	type = *(const u16 *)(p->data + 12); /* struct ethhdr is packed: its members are read byte by byte */
	p->l3 = sizeof(*eth);
#pragma unroll
	for (i = 0; i <= VLAN_TAGS_MAX; i++) {
		struct vlan_tag *tag = p->data + p->l3;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if (i == VLAN_TAGS_MAX)
			return DROP_VLAN_DEPTH;
		if ((void *)(tag + 1) > p->end)
			return DROP_TRUNCATED;
		type = tag->next_type;
		p->l3 += sizeof(*tag);
	}
	if (type == bpf_htons(ETH_P_IP))
		stop = parse_ipv4(p);
	else if (type == bpf_htons(ETH_P_IPV6))
		stop = parse_ipv6(p);
	else
		stop = PASS_NOT_IP;
	if (stop || !p->l4)
		return stop;
	if (p->protocol == IPPROTO_TCP)
		return parse_tcp(p);
	if (p->protocol == IPPROTO_UDP)
		stop = parse_udp(p);
	if (p->l3 != sizeof(*eth))
		p->l3 = forget(p->l3, p->source6[0], L3_MOST);
	p->l4 = forget(p->l4, p->source6[0], L4_MOST);
	return stop;
}
