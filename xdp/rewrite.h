/* The Ethernet header of what is sent: the next hop's MACs (all that mode l2 changes), and its move to the frame's new head. */
static __always_inline int write_macs(struct xdp_md *ctx, const struct backend *backend)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return DROP_INTERNAL;
	*(u32 *)eth->h_dest = *(const u32 *)backend->mac;
	*(u16 *)(eth->h_dest + 4) = *(const u16 *)(backend->mac + 4);
	*(u32 *)eth->h_source = *(const u32 *)backend->source_mac;
	*(u16 *)(eth->h_source + 4) = *(const u16 *)(backend->source_mac + 4);
	return CONTINUE;
}

/* Moves the Ethernet header, and up to two tags, from old to new; type is that of the outer header. */
static __always_inline int move_ethernet(struct xdp_md *ctx, u32 grown, u32 l3, __be16 type)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct vlan_tag *from, *to;
	struct ethhdr *eth = data;

	/* The MACs are written by the caller. */
	if (l3 == sizeof(struct ethhdr)) {
		if ((void *)(eth + 1) > end)
			return DROP_INTERNAL;
		eth->h_proto = type;
		return CONTINUE;
	}
	from = data + grown + sizeof(struct ethhdr);
	to = data + sizeof(struct ethhdr);
	if ((void *)(from + 1) > end)
		return DROP_INTERNAL;
	eth->h_proto = *(__be16 *)(data + grown + 12);
	to->control = from->control;
	to->next_type = type;
	if (l3 == sizeof(struct ethhdr) + 2 * sizeof(struct vlan_tag)) {
		if ((void *)(from + 2) > end)
			return DROP_INTERNAL;
		to->next_type = from->next_type;
		to[1].control = from[1].control;
		to[1].next_type = type;
	}
	return CONTINUE;
}
