/* Packets that the outer header makes too big: ICMP from the VIP tells the client what would fit (RFC 1191, RFC 4443).
 *
 * The packet becomes the quote: the frame is cut behind it, and grows at its head by an IP and an ICMP header.
 */
#define QUOTE4 548  /* with the headers 576 bytes, which every host takes (RFC 1812) */
#define QUOTE6 1232 /* with the headers 1280 bytes, which every link takes */
#define CSUM_CHUNK 512 /* bpf_csum_diff() of older kernels takes no more at once */

struct too_big {
	u8 type;
	u8 code;
	__be16 checksum;
	__be32 mtu; /* IPv4: in the low 16 bits */
};

/* Whether one more answer may be sent in this second. Two CPUs that begin a second at once may send one too many. */
static __always_inline bool take_budget(void)
{
	u32 key = 0, second = coarse_seconds();
	struct budget *budget = too_big_budget.lookup(&key);

	if (!budget)
		return false;
	if (TRACE)
		return (budget->second == second ? budget->sent : 0) < TOO_BIG_PER_SECOND;
	if (budget->second != second) {
		budget->second = second;
		budget->sent = 0;
	}
	if (budget->sent >= TOO_BIG_PER_SECOND)
		return false;
	__sync_fetch_and_add(&budget->sent, 1);
	return true;
}

static __always_inline int write_too_big4(void *data, const void *end, const struct packet *p, u32 mtu)
{
	struct iphdr *ip = data + (p->l3 & L3_MOST);
	struct too_big *icmp = (void *)(ip + 1);
	s64 sum;

	if ((void *)icmp + sizeof(*icmp) + QUOTE4 > end)
		return DROP_INTERNAL;
	write_ipv4((u32 *)ip, 0, sizeof(*ip) + sizeof(*icmp) + QUOTE4, IPPROTO_ICMP, p->vip4, p->source4);
	icmp->type = 3;
	icmp->code = 4;
	icmp->checksum = 0;
	icmp->mtu = bpf_htonl(mtu);
	sum = bpf_csum_diff(NULL, 0, (void *)icmp, CSUM_CHUNK, 0);
	sum = bpf_csum_diff(NULL, 0, (void *)icmp + CSUM_CHUNK, sizeof(*icmp) + QUOTE4 - CSUM_CHUNK, sum);
	icmp->checksum = checksum_folded((u32)sum);
	return TX_TOO_BIG;
}

static __always_inline int write_too_big6(void *data, const void *end, const struct packet *p, u32 mtu)
{
	struct ipv6hdr *ip = data + (p->l3 & L3_MOST);
	struct too_big *icmp = (void *)(ip + 1);
	u32 length = sizeof(*icmp) + QUOTE6;
	s64 sum;

	if ((void *)icmp + sizeof(*icmp) + QUOTE6 > end)
		return DROP_INTERNAL;
	*(__be32 *)ip = bpf_htonl(6U << 28);
	ip->payload_len = bpf_htons(length);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = OUTER_TTL;
	__builtin_memcpy(&ip->saddr, p->vip6, 16);
	__builtin_memcpy(&ip->daddr, p->source6, 16);
	icmp->type = 2;
	icmp->code = 0;
	icmp->checksum = 0;
	icmp->mtu = bpf_htonl(mtu);
	/* The pseudo-header: both addresses, the length, the protocol. */
	sum = bpf_csum_diff(NULL, 0, (void *)&ip->saddr, 2 * sizeof(ip->saddr), bpf_htonl(length));
	sum = bpf_csum_diff(NULL, 0, (void *)icmp, CSUM_CHUNK, sum);
	sum = bpf_csum_diff(NULL, 0, (void *)icmp + CSUM_CHUNK, CSUM_CHUNK, sum);
	sum = bpf_csum_diff(NULL, 0, (void *)icmp + 2 * CSUM_CHUNK, sizeof(*icmp) + QUOTE6 - 2 * CSUM_CHUNK, sum);
	icmp->checksum = checksum_folded((u64)(u32)sum + bpf_htonl(IPPROTO_ICMPV6));
	return TX_TOO_BIG;
}

/* No answer to an error (RFC 1122), nor to where nobody is, nor with less of a packet than a whole quote. */
static __always_inline int answer_too_big(struct xdp_md *ctx, struct packet *p, u32 mtu)
{
	bool v4 = p->family == 4;
	u32 quote = v4 ? QUOTE4 : QUOTE6, grown = sizeof(struct too_big), l3 = p->l3 & L3_MOST;
	void *data, *end;
	struct ethhdr *eth, *old;
	int stop;

	if (p->quoted || p->l3_length < quote || p->data + l3 + quote > p->end || is_nobodys(p) || !take_budget())
		return DROP_TOO_BIG;
	grown += v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	if (bpf_xdp_adjust_head(ctx, -(int)grown))
		return DROP_NO_HEADROOM;
	if (bpf_xdp_adjust_tail(ctx, (int)(l3 + quote) - (int)p->frame_length))
		return DROP_INTERNAL;
	stop = move_ethernet(ctx, grown, l3, v4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6));
	if (stop)
		return stop;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	old = data + grown;
	if ((void *)(old + 1) > end || l3 > sizeof(struct ethhdr) + VLAN_TAGS_MAX * sizeof(struct vlan_tag))
		return DROP_INTERNAL;
	__builtin_memcpy(eth->h_dest, old->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, old->h_dest, ETH_ALEN);
	return v4 ? write_too_big4(data, end, p, mtu) : write_too_big6(data, end, p, mtu);
}
