/* The second program: takes over what the first has handed on, and ends in the same finish(). */
static __always_inline int run_nat(struct xdp_md *ctx, struct packet *p, const struct handover *handover)
{
	struct service service = handover->service;
	u32 word = handover->way;

	__builtin_memcpy(&p->frame_length, handover->packet, HANDED_OVER);
	p->data = (void *)(long)ctx->data;
	p->end = (void *)(long)ctx->data_end;
	trace_stage(p, STAGE_NAT);
	if (p->family == 4) { /* what parse() left as it was */
		p->source6[1] = p->source6[2] = p->source6[3] = 0;
		p->vip6[1] = p->vip6[2] = p->vip6[3] = 0;
	}
	switch (handover->way >> 32) {
	case NAT_REQUEST:
		return nat_forward_request(ctx, p, &service);
	case NAT_REPLY:
		return nat_reply_of_slot(ctx, p, word & NAT_SLOT_MASK);
	case NAT_ICMP:
		return nat_icmp(ctx, p, word & 0xff);
	default:
		return HAVE_NAT_KEEP ? nat_reply_kept(ctx, p, word) : DROP_INTERNAL;
	}
}

int sluice_nat(struct xdp_md *ctx)
{
	u32 key = 0;
	struct handover *handover = handovers.lookup(&key);
	struct packet p;

	asm volatile("" : : "r"(&p) : "memory");
	p.trace = same_trace();
	if (!handover || (TRACE && !p.trace)) {
		p.frame_length = ctx->data_end - ctx->data;
		p.backend = p.service_number = NONE;
		return finish(ctx, &p, DROP_INTERNAL);
	}
	return finish(ctx, &p, run_nat(ctx, &p, handover));
}
