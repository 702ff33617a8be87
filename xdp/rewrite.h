/* Forwarding by MAC rewrite (mode l2), and the MACs of every frame that is sent. */
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
