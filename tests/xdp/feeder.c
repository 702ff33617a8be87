/* Feeds the packet path a flow after the other, within one BPF_PROG_TEST_RUN with repeat.
 *
 * The kernel does not restore a frame between repeats, so each run takes off what the last one put before it, writes the
 * Ethernet header and the destination anew, sets the next source address and port, and jumps to the program under test.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/tcp.h>

struct feed {
	u32 next;   /* the number of the next flow; its source address is base + number */
	u32 base;   /* host order */
	u32 length; /* of the frame */
	u32 refused; /* runs that could not be made ready */
	u32 destination; /* as they lie in the frame: a program may have changed them */
	u32 ports;
	u8 ethernet[16];
};

#define KEPT 32768

BPF_ARRAY(feeds, struct feed, 1);
BPF_ARRAY(left, u64, KEPT); /* of the first flows, if their frames did not grow: source address and ports that they left with */
BPF_PROG_ARRAY(targets, 1);

/* What became of the flow before this one. */
static __always_inline void keep_last(struct xdp_md *ctx, const struct feed *feed)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	u32 last = feed->next - 1;
	u64 *kept = left.lookup(&last);

	if (kept && (void *)(ip + 1) + sizeof(u32) <= end)
		*kept = ip->saddr | (u64)*(u32 *)(ip + 1) << 32;
}

int feeder(struct xdp_md *ctx)
{
	int zero = 0;
	struct feed *feed = feeds.lookup(&zero);
	struct tcphdr *tcp;
	struct iphdr *ip;
	void *data;
	u32 grown;

	if (!feed)
		return XDP_ABORTED;
	grown = ctx->data_end - ctx->data - feed->length;
	if (!grown) {
		keep_last(ctx, feed);
	} else if (bpf_xdp_adjust_head(ctx, grown)) {
		feed->refused++;
		return XDP_ABORTED;
	}
	data = (void *)(long)ctx->data;
	ip = data + ETH_HLEN;
	tcp = (void *)(ip + 1);
	if ((void *)(tcp + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__builtin_memcpy(data, feed->ethernet, ETH_HLEN);
	ip->saddr = bpf_htonl(feed->base + feed->next);
	ip->daddr = feed->destination;
	ip->ttl = 64;
	*(u32 *)tcp = feed->ports;
	tcp->source = bpf_htons(1024 + feed->next % 60000);
	feed->next++;
	targets.call(ctx, 0);
	feed->refused++;
	return XDP_ABORTED;
}
