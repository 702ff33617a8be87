/* The program that a measured program runs behind: it puts the packet back, varies it, and tail-calls the other.
 *
 * benchmarks/programs.py runs it by BPF_PROG_TEST_RUN with a repeat count. The kernel does not put the packet back between
 * repeats, so without this a program that adds an outer header would be measured on its own output. What this program
 * itself costs is measured with `unchanged` (or `grown…`) in the place of the other, and taken off.
 *
 * From benchmarks/programs.py, as -D: LENGTH of the frame, a multiple of 8; ANSWERS, how many `answers` has room for;
 * SCATTER, FIRST_SOURCE and SOURCES, as in benchmarks/cases.py.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>

struct plan {
	u64 frame[LENGTH / 8];
	u32 first;  /* number of the first flow */
	u32 count;  /* how many flows; 0: the frame as it is */
	u32 random; /* draw the flow instead of taking the next */
	u32 vips;   /* how many VIPs in a row, less 1; a power of two less 1 */
	u32 answer; /* the flows are those of `answers` */
	u32 unused;
};

/* What a backend answers to one flow of mode nat, by the flow's number. */
struct answer {
	__be32 source, destination;
	__be32 ports; /* both, as they stand in the frame */
	u32 unused;
};

BPF_ARRAY(plans, struct plan, 1);
BPF_ARRAY(answers, struct answer, ANSWERS);
BPF_ARRAY(next_flow, u64, 1);
BPF_PROG_ARRAY(measured, 1);

static __always_inline u32 pick_flow(const struct plan *plan)
{
	u32 zero = 0, flow;
	u64 *next;

	if (plan->random) /* multiplied, not divided: a division would cost as much as a small program */
		return (u64)bpf_get_prandom_u32() * plan->count >> 32;
	next = next_flow.lookup(&zero);
	if (!next)
		return 0;
	flow = *next; /* one run is on one CPU: nobody else counts */
	*next = flow + 1 < plan->count ? flow + 1 : 0;
	return flow;
}

/* Numbers that come to the same address differ in the port: they are 2^24 and more apart. */
static __always_inline void write_flow4(void *data, const struct plan *plan, u32 flow)
{
	u32 number = plan->first + flow, scattered = number * SCATTER;
	__be32 *vip = data + 30;
	__be16 *port = data + 34;

	*(__be32 *)(data + 26) = bpf_htonl(FIRST_SOURCE + ((u64)scattered * SOURCES >> 32));
	*vip = bpf_htonl(bpf_ntohl(*vip) + (flow & plan->vips));
	*port = bpf_htons(bpf_ntohs(*port) + (number >> 24));
}

static __always_inline void write_flow6(void *data, const struct plan *plan, u32 flow)
{
	*(__be32 *)(data + 34) = bpf_htonl(plan->first + flow);
}

static __always_inline void write_answer(void *data, u32 flow)
{
	struct answer *answer = answers.lookup(&flow);

	if (!answer)
		return;
	*(__be32 *)(data + 26) = answer->source;
	*(__be32 *)(data + 30) = answer->destination;
	*(__be32 *)(data + 34) = answer->ports;
}

static __always_inline void write_flow(void *data, const struct plan *plan, u32 flow)
{
	if (plan->answer)
		write_answer(data, flow);
	else if (((struct ethhdr *)data)->h_proto == bpf_htons(ETH_P_IP))
		write_flow4(data, plan, flow);
	else
		write_flow6(data, plan, flow);
}

int restore(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	long grown = end - data - LENGTH;
	u32 zero = 0;
	struct plan *plan;

	if (grown) {
		if (bpf_xdp_adjust_head(ctx, grown))
			return XDP_ABORTED;
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
	}
	plan = plans.lookup(&zero);
	if (!plan || data + LENGTH > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, plan->frame, LENGTH);
	if (plan->count)
		write_flow(data, plan, pick_flow(plan));
	measured.call(ctx, 0);
	return XDP_ABORTED; /* nothing is there to be measured */
}

int unchanged(struct xdp_md *ctx)
{
	return XDP_PASS;
}

int grown20(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, -20) ? XDP_ABORTED : XDP_PASS;
}

int grown40(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, -40) ? XDP_ABORTED : XDP_PASS;
}
