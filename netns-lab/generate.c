/* Sends one frame over and over, with another source address and port each time.
 *
 * generate.py runs it by BPF_PROG_TEST_RUN with live frames: what is redirected really leaves. The kernel recycles its
 * pages with whatever the last user wrote to them, so every frame is written afresh from the template.
 *
 * From generate.py, as -D: LENGTH of the frame (60 or more); EGRESS, the interface's index; SOURCES and PORTS, how many
 * of each; SOURCE_AT and PORT_AT, offsets in the frame of the source address (of IPv6: its last four bytes) and of the
 * source port; IP_SUM_AT and L4_SUM_AT, offsets of the checksums that cover them (0: there is none); RANDOM, draw
 * instead of counting up.
 */
#include <uapi/linux/bpf.h>

/* Whole words first: a copy of bytes would be made byte by byte. */
struct frame {
	u64 words[LENGTH / 8];
	u8 rest[LENGTH % 8];
};

BPF_ARRAY(templates, struct frame, 1);
BPF_ARRAY(next_flow, u64, 1);

static __always_inline u32 pick_flow(void)
{
	u32 zero = 0;
	u64 *next;

	if (RANDOM)
		return bpf_get_prandom_u32();
	next = next_flow.lookup(&zero);
	return next ? (*next)++ : 0; /* one run is on one CPU: nobody else counts */
}

/* What replacing one value by another adds to a one's complement sum. */
static __always_inline u32 difference(u32 before, u32 after)
{
	return (~before & 0xffff) + (~before >> 16) + (after & 0xffff) + (after >> 16);
}

static __always_inline void mend_sum(void *data, u32 at, u32 added)
{
	__be16 *field = data + at;
	u32 sum = (u16)~*field + added; /* RFC 1624 */

	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16)) & 0xffff;
	*field = sum ?: 0xffff; /* the same number, but 0 would say that UDP carries no checksum (RFC 768) */
}

int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct frame *template, *frame = data;
	u32 zero = 0, flow, change;
	__be32 *address, before;
	__be16 *port;

	template = templates.lookup(&zero);
	if (!template || data + LENGTH > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__builtin_memcpy(frame->words, template->words, sizeof(frame->words));
	__builtin_memcpy(frame->rest, template->rest, sizeof(frame->rest));

	flow = pick_flow();
	address = data + SOURCE_AT;
	before = *address;
	*address = bpf_htonl(bpf_ntohl(before) + flow / PORTS % SOURCES);
	change = difference(before, *address);
	if (IP_SUM_AT)
		mend_sum(data, IP_SUM_AT, change);
	port = data + PORT_AT;
	before = *port;
	*port = bpf_htons(bpf_ntohs(before) + flow % PORTS);
	if (L4_SUM_AT)
		mend_sum(data, L4_SUM_AT, change + difference(before, *port));
	return bpf_redirect(EGRESS, 0);
}
