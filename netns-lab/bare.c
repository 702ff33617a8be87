/* The least an XDP program can do: the floor under every figure, where the bench's packets end, and one load from memory.
 *
 * The last is what a table larger than the caches costs on this machine whatever a program does with it: a packet's
 * address is read, and one place of a table as large as the balancer's, which depends on it.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/ip.h>

#define LINE 64
#define FLOW_LINES (1 << 18)   /* a flow table of 2^20 slots: 16 MB */
#define PREFIX_LINES (1 << 19) /* two bytes for each /24: 32 MB */

struct line {
	u16 cells[LINE / 2];
};

BPF_F_TABLE("array", u32, struct line, flow_lines, FLOW_LINES, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct line, prefix_lines, PREFIX_LINES, BPF_F_MMAPABLE);

static __always_inline u32 read_source(struct xdp_md *ctx)
{
	struct iphdr *ip = (void *)(long)ctx->data + sizeof(struct ethhdr);

	return (void *)(ip + 1) > (void *)(long)ctx->data_end ? 0 : bpf_ntohl(ip->saddr);
}

/* The compiler cannot know that it is not used: the packet's way goes on when it has come, as a program's does. */
static __always_inline int wait_for(u32 loaded)
{
	asm volatile("%0 &= 0" : "+r"(loaded));
	return loaded;
}

int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

int transmit(struct xdp_md *ctx)
{
	return XDP_TX;
}

int load_flow_line(struct xdp_md *ctx)
{
	u32 line = read_source(ctx) * 0x9E3779B1u;
	struct line *found;

	line = (line ^ line >> 15) * 0x85EBCA6Bu >> 14;
	found = flow_lines.lookup(&line);
	return XDP_TX + (found ? wait_for(found->cells[0]) : 0);
}

int load_prefix_cell(struct xdp_md *ctx)
{
	u32 prefix = read_source(ctx) >> 8, line = prefix / (LINE / 2);
	struct line *found = prefix_lines.lookup(&line);

	return XDP_DROP + (found ? wait_for(found->cells[prefix % (LINE / 2)]) : 0);
}
