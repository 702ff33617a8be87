/* The second program: takes over what the first has handed over, and ends in the same finish(). */

/* Translates the packet, and sends it on its way. */
static __always_inline int nat_leave(struct xdp_md *ctx, struct packet *p, const struct nat_way *way)
{
	int stop;

	/* The flow of a backend or a service that has just left, and with it the last that crossed. */
	if (!HAVE_NAT_CROSS && p->family != way->to.family)
		return DROP_NAT_UNTRANSLATABLE;
	stop = nat_check_way(ctx, p, way->to.family, way->mtu);
	if (stop)
		return stop;
	if (p->quoted)
		stop = nat_translate_error(ctx, p, way);
	else
		stop = HAVE_NAT_ICMP && is_icmp(p) ? nat_echo(ctx, p, way) : nat_rewrite(ctx, p, &way->to);
	if (stop)
		return stop;
	return nat_send((void *)(long)ctx->data, (void *)(long)ctx->data_end, p, way->mac, way->our_mac, way->ifindex, way->home);
}

static __always_inline int run_nat(struct xdp_md *ctx, struct packet *p, const struct handover *handover)
{
	struct service service = handover->service;
	u32 word = handover->way, kind = handover->way >> 32;
	struct nat_way way = {};
	int stop;

	__builtin_memcpy(&p->frame_length, handover->packet, HANDED_OVER);
	p->data = (void *)(long)ctx->data;
	p->end = (void *)(long)ctx->data_end;
	trace_stage(p, STAGE_NAT);
	if (TRACE)
		p->trace->nat_way = kind;
	if (p->family == 4) { /* what parse() left as it was */
		p->source6[1] = p->source6[2] = p->source6[3] = 0;
		p->vip6[1] = p->vip6[2] = p->vip6[3] = 0;
	}
	if (kind == NAT_REQUEST)
		stop = nat_request(p, &service, &way);
	else
		stop = nat_from_backend(p, kind, word, &way);
	if (stop)
		return stop;
	settle(ctx, p);
	return nat_leave(ctx, p, &way);
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
	nat_forget_former(handover);
	return finish(ctx, &p, run_nat(ctx, &p, handover));
}
