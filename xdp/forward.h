/* Stage forward: sends the packet to its backend, in the service's mode, by the interface that leads to the next hop. */
static __always_inline int forward(struct xdp_md *ctx, struct packet *p, const struct service *service,
				   const struct backend *backend)
{
	bool l2 = HAVE_L2 && (!(HAVE_IPIP || HAVE_GUE) || service->flags & SERVICE_L2), here = true;
	bool gue = HAVE_GUE && (!(HAVE_IPIP || HAVE_L2) || service->flags & SERVICE_GUE);
	int stop;

	if (!(backend->state & BACKEND_RESOLVED))
		return DROP_NO_NEXT_HOP;
	if (!l2) {
		stop = encapsulate(ctx, p, backend, gue);
		if (stop)
			return stop;
	}
	stop = write_macs(ctx, backend);
	if (stop)
		return stop;
	if (HAVE_REDIRECT && backend->ifindex != OUR_IFINDEX) {
		p->egress_ifindex = backend->ifindex;
		here = false;
	}
	if (l2)
		return here ? TX_L2 : REDIRECT_L2;
	if (gue)
		return here ? TX_GUE : REDIRECT_GUE;
	return here ? TX_IPIP : REDIRECT_IPIP;
}
