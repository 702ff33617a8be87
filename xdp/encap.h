/* Forwarding in an outer header: 4in4 (RFC 2003), 6in4 (RFC 4213), 4in6 and 6in6 (RFC 2473), or GUE, with UDP between.
 *
 * The frame grows at its head by the outer headers; VLAN tags move with the Ethernet header, so the frame leaves in the
 * VLAN it came from. Padding behind the packet is not counted in the outer length.
 */
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
