/* ICMP errors of NAT flows: outer packet and quote are translated in opposite directions, and every checksum is adjusted.
 *
 * Across the families (RFC 7915, 4.2 to 4.5 and 5.2 to 5.5) both headers are replaced; what follows the quoted one stays.
 */
/* Changes one word, and what the sums over it change by. */
static __always_inline u64 put_word(u32 *word, u32 value)
{
	u64 change = sum_change(*word, value);

	*word = value;
	return change;
}

/* The quoted transport: ports, and its checksum if it is quoted. addresses: by what the sum of the addresses changes.
 * Adds to change what ICMP's own sum changes by. */
static __always_inline int nat_quoted_transport(void *data, const struct packet *p, u32 at, const struct nat_tuple *quote,
						u64 addresses, u64 *change)
{
	u32 *ports = data + (at & L4_MOST), *check;
	u64 moved;
	u16 before, after;

	if ((void *)(ports + 1) > p->end)
		return DROP_INTERNAL;
	moved = put_word(ports, quote->source_port | (u32)quote->port << 16);
	*change += moved;
	/* The word that ends with the checksum. */
	at += p->protocol == IPPROTO_TCP ? 14 : 4;
	check = data + (at & L4_MOST);
	if ((void *)(check + 1) > p->end || at + 4 > p->l3 + p->l3_length)
		return CONTINUE;
	before = ((u16 *)check)[1];
	if (p->protocol == IPPROTO_UDP && !before)
		return CONTINUE;
	after = checksum_changed(before, addresses + moved);
	((u16 *)check)[1] = p->protocol == IPPROTO_UDP && !after ? 0xffff : after;
	*change += (u64)(u16)~before + (p->protocol == IPPROTO_UDP && !after ? 0xffff : after);
	return CONTINUE;
}

/* What follows the quoted IP header. covered: by what the sum of that which the transport's checksum covers beside it changes. */
static __always_inline int nat_quoted(void *data, const struct packet *p, u32 at, const struct nat_way *way, u64 covered,
				      u64 *change)
{
	struct icmp_header *icmp = data + (at & L4_MOST);

	if (!HAVE_NAT_ICMP || !is_icmp(p))
		return nat_quoted_transport(data, p, at, &way->quote, covered, change);
	if ((void *)(icmp + 1) > p->end)
		return DROP_INTERNAL;
	*change += put_echo(icmp, way->to.family, !way->home, way->home ? way->quote.source_port : way->quote.port, covered);
	return CONTINUE;
}

static __always_inline int nat_error4(struct packet *p, const struct nat_way *way)
{
	u32 at = (p->l4 & L4_MOST) + sizeof(struct icmp_header);
	struct iphdr *ip = p->data + (p->l3 & L3_MOST), *quote = p->data + at;
	struct icmp_header *icmp = p->data + (p->l4 & L4_MOST);
	u64 outer, inner, change;
	u16 *ttl, came, check;
	int stop;

	if ((void *)(ip + 1) > p->end || (void *)(quote + 1) > p->end || (void *)(icmp + 1) > p->end)
		return DROP_INTERNAL;
	ttl = (u16 *)&ip->ttl;
	came = *ttl;
	*ttl = came - 1;
	outer = put_word(&ip->saddr, way->to.source[0]) + put_word(&ip->daddr, way->to.destination[0]);
	ip->check = checksum_changed(ip->check, outer + (u16)~came + *ttl);
	inner = put_word(&quote->saddr, way->quote.source[0]) + put_word(&quote->daddr, way->quote.destination[0]);
	check = quote->check;
	quote->check = checksum_changed(check, inner);
	change = inner + (u16)~check + quote->check;
	stop = nat_quoted(p->data, p, at + quote->ihl * 4, way, HAVE_NAT_ICMP && is_icmp(p) ? 0 : inner, &change);
	icmp->checksum = checksum_changed(icmp->checksum, change);
	return stop;
}

static __always_inline u64 put_address(u32 *address, const u32 *value)
{
	u64 change = sum_less(address) + sum_of(value);

	__builtin_memcpy(address, value, 16);
	return change;
}

static __always_inline int nat_error6(struct packet *p, const struct nat_way *way)
{
	u32 at = (p->l4 & L4_MOST) + sizeof(struct icmp_header);
	struct ipv6hdr *ip = p->data + (p->l3 & L3_MOST), *quote = p->data + at;
	struct icmp_header *icmp = p->data + (p->l4 & L4_MOST);
	u64 inner, change;
	int stop;

	if ((void *)(ip + 1) > p->end || (void *)(quote + 1) > p->end || (void *)(icmp + 1) > p->end)
		return DROP_INTERNAL;
	ip->hop_limit--;
	change = put_address((u32 *)&ip->saddr, way->to.source) + put_address((u32 *)&ip->daddr, way->to.destination);
	inner = put_address((u32 *)&quote->saddr, way->quote.source) + put_address((u32 *)&quote->daddr, way->quote.destination);
	change += inner;
	stop = nat_quoted(p->data, p, at + sizeof(*quote), way, inner, &change);
	icmp->checksum = checksum_changed(icmp->checksum, change);
	return stop;
}

/* The sum of a header of 20 or 40 bytes, in 32-bit words. */
static __always_inline u64 header_sum(const void *header, bool v6)
{
	const u32 *word = header;
	u64 sum = (u64)word[0] + word[1] + word[2] + word[3] + word[4];

	return v6 ? sum + word[5] + word[6] + word[7] + word[8] + word[9] : sum;
}

static __always_inline u64 less(u64 sum)
{
	/* In the arithmetic of the checksum, a multiple of 2^16 - 1 is nothing: what is taken off is taken off from one. */
	return 0xffffffffULL * 0x1000 - sum;
}

static __always_inline int nat_error_cross(struct xdp_md *ctx, struct packet *p, const struct nat_way *way)
{
	bool to6 = way->to.family == 6, echo = HAVE_NAT_ICMP && is_icmp(p);
	u32 l3 = p->l3 & L3_MOST, old_inner = to6 ? 20 : 40, new_inner = to6 ? 40 : 20, made, at, length;
	struct icmp_header *icmp = p->data + (p->l4 & L4_MOST);
	void *quote = (void *)(icmp + 1), *data;
	u32 rest, class = p->traffic_class;
	u64 change, addresses, pseudo;
	u8 ttl = ttl_of(p) - 1, hops;
	u16 old_type, check, quoted;
	u8 saved;
	int stop;

	if (quote + 40 > p->end) {
		if (!to6 || quote + 20 > p->end)
			return DROP_NAT_UNTRANSLATABLE;
	}
	if (to6 && *(u8 *)quote != 0x45)
		return DROP_NAT_UNTRANSLATABLE;
	rest = icmp->rest;
	made = to6 ? icmp_to_6(icmp->type, icmp->code, &rest) : icmp_to_4(icmp->type, icmp->code, &rest);
	if (made == NONE)
		return DROP_NAT_UNTRANSLATABLE;
	old_type = *(u16 *)icmp;
	check = icmp->checksum;
	length = (l3 + p->l3_length - p->l4) & 0xffff;
	pseudo = bpf_htonl(length) + (u64)bpf_htonl(IPPROTO_ICMPV6);
	if (to6) {
		struct iphdr *ip = quote;

		change = less(header_sum(quote, false));
		addresses = echo ? 0 : sum_change(ip->saddr, 0) + sum_change(ip->daddr, 0);
		quoted = bpf_ntohs(ip->tot_len) - 20;
		hops = ip->ttl;
		saved = ip->tos;
	} else {
		struct ipv6hdr *ip = quote;
		struct ipv6hdr *outer = p->data + l3;

		if ((void *)(ip + 1) > p->end || (void *)(outer + 1) > p->end)
			return DROP_INTERNAL;
		change = less(header_sum(quote, true)) + less(pseudo) + sum_less((u32 *)&outer->saddr) + sum_less((u32 *)&outer->daddr);
		addresses = sum_less((u32 *)&ip->saddr) + sum_less((u32 *)&ip->daddr);
		quoted = bpf_ntohs(ip->payload_len);
		hops = ip->hop_limit;
		saved = bpf_ntohs(*(__be16 *)ip) >> 4;
	}
	if (!echo || to6)
		addresses += sum_of(way->quote.source) + sum_of(way->quote.destination);
	if (echo)
		addresses += pseudo_header(quoted, to6);
	change += (u64)(u16)~old_type + (u32)~icmp->rest + rest + bpf_htons(made);
	/* The quoted header takes the room, and then what stands before it moves. */
	p->l4 = p->l4 + old_inner - new_inner;
	stop = nat_resize(ctx, p, way->to.family);
	if (stop)
		return stop;
	data = p->data;
	length = length + new_inner - old_inner;
	stop = nat_write_header(data + l3, p->end, p, &way->to, to6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, ttl, length & 0xffff);
	if (stop)
		return stop;
	at = l3 + (to6 ? 40 : 20);
	icmp = data + at;
	quote = data + at + sizeof(*icmp);
	if ((void *)(icmp + 1) > p->end || quote + (to6 ? 40 : 20) > p->end)
		return DROP_INTERNAL;
	p->traffic_class = saved;
	stop = nat_write_header(quote, p->end, p, &way->quote, protocol_in(p, way->quote.family), hops, quoted);
	p->traffic_class = class;
	if (stop)
		return stop;
	if (to6) {
		if (quote + 40 > p->end)
			return DROP_INTERNAL;
		pseudo = bpf_htonl(length) + (u64)bpf_htonl(IPPROTO_ICMPV6);
		change += header_sum(quote, true) + pseudo + sum_of(way->to.source) + sum_of(way->to.destination);
	} else {
		if (quote + 20 > p->end)
			return DROP_INTERNAL;
		change += header_sum(quote, false);
	}
	p->l3_length = at - l3 + length;
	stop = nat_quoted(data, p, at + sizeof(*icmp) + new_inner, way, addresses, &change);
	icmp = data + at;
	if ((void *)(icmp + 1) > p->end)
		return DROP_INTERNAL;
	*(u16 *)icmp = bpf_htons(made);
	icmp->rest = rest;
	icmp->checksum = checksum_wide((u16)~check + change);
	return stop;
}

static __always_inline int nat_translate_error(struct xdp_md *ctx, struct packet *p, const struct nat_way *way)
{
	if (HAVE_NAT_CROSS && p->family != way->to.family)
		return nat_error_cross(ctx, p, way);
	return p->family == 4 ? nat_error4(p, way) : nat_error6(p, way);
}
