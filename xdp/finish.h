/* Stage finish: the one exit. Nothing leaves uncounted, and nothing but this returns an XDP action.
 *
 * A packet counts once by verdict and once by what it reached: its backend's place, or, if it came to a service and found
 * no backend, the service. A service's total is the sum of both (lb/reconcile/observe.py).
 */
static __always_inline void count(struct tally *tally, const struct packet *p)
{
	if (!tally || TRACE)
		return;
	tally->packets++;
	tally->bytes += p->frame_length;
}

static __always_inline int finish(struct xdp_md *ctx, const struct packet *p, int verdict)
{
	u32 key = verdict & ((1 << ACTION_SHIFT) - 1), action = verdict >> ACTION_SHIFT;

	trace_end(p, verdict);
	if (HAVE_SAMPLES)
		sample_packet(ctx, p, key);
	count(verdict_counters.lookup(&key), p);
	if (p->backend != NONE) {
		key = p->backend;
		count(backend_counters.lookup(&key), p);
	} else if (p->service_number != NONE) {
		key = p->service_number;
		count(service_counters.lookup(&key), p);
	}
	if (HAVE_REDIRECT && action == XDP_REDIRECT)
		return bpf_redirect(p->egress_ifindex, 0);
	return action;
}
