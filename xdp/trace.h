/* The traced build (TRACE), which explain runs: it records what became of a packet, and changes nothing that is shared.
 *
 * It is the same source over the same maps; stages note here what they found, and whatever writes is left out. The other
 * build has none of it, to the instruction. The struct stands here and not in types.h because no pinned map holds it.
 */

/* A flow's addresses and ports, in network order. */
struct trace_flow {
	__u32 source[4];
	__u32 destination[4];
	__be16 source_port;
	__be16 port;
	__u8 family; /* 4, 6, or 0: none was read */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 marks; /* TRACE_* */
};

#define TRACE_PORTS 1    /* the ports were read */
#define TRACE_FRAGMENT 2
#define TRACE_QUOTED 4   /* it is the flow that an ICMP error quotes */

struct trace {
	struct trace_flow parsed;   /* as the frame says */
	struct trace_flow wanted;   /* as a service was looked for: an ICMP error's is the flow that it quotes */
	__u32 verdict;              /* its number */
	__u32 stage;                /* STAGE_*: where the way ended */
	__u32 l3;                   /* offset and length of the IP packet */
	__u32 l3_length;
	__u32 deny_entry;            /* 0: none */
	__u32 allow_entry;
	__u32 service;              /* NONE, or its number */
	__u32 place;                /* NONE, or in `backends` */
	__u32 via;                  /* VIA_*; 0: no backend was chosen */
	__u32 quic_id;              /* 0: none was read */
	__u32 rule;                 /* number of the rule that decided, or whose limit did; NONE: none */
	__u32 guard;                /* GUARD_*: how a guarded service took a new flow; 0: it was not asked */
	__u32 nat_slot;             /* of the NAT entry that was found or would be made; 0: none */
	__u32 nat_way;              /* NAT_*: as what the second program took it; 0: it did not */
	__u64 nat_forward_state;    /* of that entry; both 0: it is new */
	__u64 nat_reply_state;
	__u64 flow_state;           /* of the flow table's entry; 0: there is none */
	__u64 now_s;                /* by the clock of flow_state */
};

#define STAGE_PARSE 1
#define STAGE_ADMIT 2
#define STAGE_ICMP 3
#define STAGE_SERVICE 4
#define STAGE_SELECT 5
#define STAGE_FORWARD 6
#define STAGE_NAT 7

#define GUARD_PEACE 1
#define GUARD_KNOWN 2
#define GUARD_PROVEN 3
#define GUARD_TESTED 4
#define GUARD_WITHIN 5  /* unknown, and the budget was not spent */
#define GUARD_REFUSED 6

#define VIA_FLOW 1
#define VIA_RING 2
#define VIA_QUIC 3

#if TRACE
MAP("array", u32, struct trace, traces, MEMORY);

static __always_inline struct trace *new_trace(void)
{
	u32 key = 0;
	struct trace *trace = traces.lookup(&key);

	if (trace) {
		__builtin_memset(trace, 0, sizeof(*trace));
		trace->rule = NONE;
	}
	return trace;
}

/* The second program goes on where the first has stopped. */
static __always_inline struct trace *same_trace(void)
{
	u32 key = 0;

	return traces.lookup(&key);
}
#else
static __always_inline struct trace *same_trace(void)
{
	return NULL;
}

static __always_inline struct trace *new_trace(void)
{
	return NULL;
}
#endif

static __always_inline void trace_flow(struct trace_flow *flow, const struct packet *p)
{
	__builtin_memcpy(flow->source, p->source6, 16);
	__builtin_memcpy(flow->destination, p->vip6, 16);
	flow->source_port = p->source_port;
	flow->port = p->port;
	flow->family = p->family;
	flow->protocol = p->protocol;
	flow->tcp_flags = p->tcp_flags;
	flow->marks = p->has_ports * TRACE_PORTS | p->fragment * TRACE_FRAGMENT | !!p->quoted * TRACE_QUOTED;
}

/* What parse() made of the frame, whatever came of that. */
static __always_inline void trace_packet(const struct packet *p)
{
	if (!TRACE)
		return;
	trace_flow(&p->trace->parsed, p);
	p->trace->l3 = p->l3;
	p->trace->l3_length = p->l3_length;
}

/* A stage begins. Noted here and not at the end, so that little has to be kept until then: the verifier loses track of
 * a pointer that the compiler runs out of registers for. */
static __always_inline void trace_stage(const struct packet *p, u32 stage)
{
	if (!TRACE)
		return;
	p->trace->stage = stage;
	if (stage == STAGE_SERVICE || stage == STAGE_NAT)
		trace_flow(&p->trace->wanted, p);
}

/* What the flow table has, or NULL. */
static __always_inline void trace_entry(const struct packet *p, const struct flow *flow)
{
	if (!TRACE || !flow)
		return;
	p->trace->flow_state = flow->state;
	p->trace->now_s = coarse_seconds();
}

static __always_inline void trace_via(const struct packet *p, u32 via)
{
	if (TRACE)
		p->trace->via = via;
}

/* How a guarded service took a new flow. */
static __always_inline void trace_guard(const struct packet *p, u32 answer)
{
	if (TRACE)
		p->trace->guard = answer;
}

/* NAT's entry of the flow. */
static __always_inline void trace_nat(const struct packet *p, u32 slot, u64 forward_state, u64 reply_state)
{
	if (!TRACE)
		return;
	p->trace->nat_slot = slot;
	p->trace->nat_forward_state = forward_state;
	p->trace->nat_reply_state = reply_state;
	p->trace->now_s = coarse_seconds();
}

static __always_inline void trace_end(const struct packet *p, u32 verdict)
{
	if (!TRACE || !p->trace)
		return;
	p->trace->verdict = verdict & ((1 << ACTION_SHIFT) - 1);
	p->trace->service = p->service_number;
	p->trace->place = p->backend;
}
