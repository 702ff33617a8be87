/* Echo requests and replies of NAT's flows: the identifier is another, and across the families type and IP header (RFC 7915,
 * 4.2 and 5.2). ICMPv6's checksum covers a pseudo-header, ICMPv4's does not.
 */
/* Makes an echo another, its checksum too. covered: by what the sum of the pseudo-header changes. By what a sum over these
 * bytes changes. An ICMPv4 checksum that comes out as 0 is 0xffff, for the message may be all zeros. */
static __always_inline u64 put_echo(struct icmp_header *icmp, u8 family, bool reply, __be16 identifier, u64 covered)
{
	u16 *word = (u16 *)icmp, type = echo_type(family, reply), before = word[1], after;
	u64 change = (u64)(u16)~word[0] + type + (u16)~word[2] + identifier;

	after = checksum_wide((u16)~before + change + covered);
	if (family == 4 && !after)
		after = 0xffff;
	word[0] = type; /* and code 0 */
	word[1] = after;
	word[2] = identifier;
	return change + (u16)~before + after;
}

/* By what a pseudo-header changes its sum that comes or goes, but for the addresses. */
static __always_inline u64 pseudo_header(u32 length, bool comes)
{
	u32 words[] = { bpf_htonl(length), bpf_htonl(IPPROTO_ICMPV6) };

	return comes ? (u64)words[0] + words[1] : sum_change(words[0], 0) + sum_change(words[1], 0);
}

static __always_inline int nat_echo_cross(struct xdp_md *ctx, struct packet *p, const struct nat_tuple *to, u32 length)
{
	u8 ttl = ttl_of(p) - 1;
	int stop = nat_resize(ctx, p, to->family);

	if (stop)
		return stop;
	return nat_write_header(p->data + (p->l3 & L3_MOST), p->end, p, to, protocol_in(p, to->family), ttl, length);
}

static __always_inline int nat_echo(struct xdp_md *ctx, struct packet *p, const struct nat_way *way)
{
	const struct nat_tuple *to = &way->to;
	u32 at = p->l4 & L4_MOST, length = (p->l3 + p->l3_length - p->l4) & 0xffff;
	struct icmp_header *icmp;
	u64 covered = 0;
	int stop;

	if (HAVE_NAT_CROSS && p->family != to->family) {
		bool to6 = to->family == 6;

		covered = pseudo_header(length, to6);
		covered += to6 ? sum_of(to->source) + sum_of(to->destination) : sum_less(p->source6) + sum_less(p->vip6);
		at = (p->l3 & L3_MOST) + (to6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
		stop = nat_echo_cross(ctx, p, to, length);
	} else if (p->family == 4) {
		stop = nat_header4(p->data, p->end, p, to,
				   sum_change(p->source4, to->source[0]) + sum_change(p->vip4, to->destination[0]));
	} else {
		covered = addresses_change(p, to);
		stop = nat_header6(p->data, p->end, p, to);
	}
	icmp = p->data + at;
	if (stop || (void *)(icmp + 1) > p->end)
		return stop ?: DROP_INTERNAL;
	put_echo(icmp, to->family, way->home, way->home ? to->port : to->source_port, covered);
	return CONTINUE;
}
