/* The Ethernet header of what is sent: the next hop's MACs (all that mode l2 changes), and its move to the frame's new head. */
static __always_inline int write_macs(struct xdp_md *ctx, const struct backend *backend)
{
	void *data = (void *)(long)ctx->data;
	u64 mac;

	if (data + sizeof(struct ethhdr) > (void *)(long)ctx->data_end)
		return DROP_INTERNAL;
	/* Read whole, as it is written: no packet gets half of a MAC that changes. */
	mac = *(const volatile u64 *)backend->mac;
	/* Not by struct ethhdr, which is packed: its members are written byte by byte. */
	*(u32 *)data = mac;
	*(u16 *)(data + 4) = mac >> 32;
	*(u32 *)(data + 6) = *(const u32 *)backend->source_mac;
	*(u16 *)(data + 10) = *(const u16 *)(backend->source_mac + 4);
	return CONTINUE;
}

/* Moves up to two tags from the old place to the new head; type is that of the outer header. MACs are the caller's. */
static __always_inline int move_ethernet(struct xdp_md *ctx, u32 grown, u32 l3, __be16 type)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct vlan_tag *from, *to;

	if (l3 == sizeof(struct ethhdr)) {
		if (data + sizeof(struct ethhdr) > end)
			return DROP_INTERNAL;
		*(__be16 *)(data + 12) = type;
		return CONTINUE;
	}
	from = data + grown + sizeof(struct ethhdr);
	to = data + sizeof(struct ethhdr);
	if ((void *)(from + 1) > end)
		return DROP_INTERNAL;
	*(__be16 *)(data + 12) = *(__be16 *)(data + grown + 12);
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
