/* What clients' packets tell about their backends: counted while some service wants it, without changing any verdict. */
static __always_inline struct passive_tally *passive_tally(u32 place)
{
	return passive_counters.lookup(&place);
}

/* A SYN of a flow that is known by its SYN alone, and by that a few seconds ago: the backend's answer was lost, or none. */
static __always_inline void count_syn_retry(const struct packet *p, const struct service *service, u32 place, u64 state, u64 now_s)
{
	struct passive_tally *tally;

	if (!opens_tcp(p) || state & FLOW_ESTABLISHED || !is_of_service(state, service) || flow_age(state, now_s) > SYN_RETRY_S)
		return;
	tally = passive_tally(place);
	if (tally && !TRACE)
		tally->syn_retries++;
}

static __always_inline void count_unreachable(const struct packet *p)
{
	struct passive_tally *tally = p->quoted == QUOTED_UNREACHABLE ? passive_tally(p->backend) : NULL;

	if (tally && !TRACE)
		tally->unreachables++;
}
