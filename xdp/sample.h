/* Packets for watchers, and bans, handed to the control plane by a bounded queue.
 *
 * struct sample stands here and not in types.h because no map is made of it: a new member costs no state.
 */
#define SAMPLE_BYTES 256
/* A record of `samples`. */
struct sample {
	__u64 time_ns; /* of the monotonic clock */
	__u32 kind;    /* SAMPLE_* */
	__u32 verdict; /* its number */
	__u32 entry;   /* of the blocklist; 0: none */
	__u32 rule;    /* number of the rule that decided, or of the limit; NONE: none */
	__u32 service; /* NONE, or its number */
	__u32 place;   /* NONE, or in `backends` */
	__u32 ifindex;
	__u32 frame_length;
	__u32 captured; /* of `bytes`, as the packet leaves */
	__u32 family;   /* 4 or 6; 0: no address was read */
	__u32 source[4]; /* network order, as it came */
	__u8 bytes[SAMPLE_BYTES];
};
#define SAMPLE_LOOK 1 /* somebody looks */
#define SAMPLE_BAN 2  /* a source is over the limit of a rule with RULE_BANS; without bytes */

/* Sixteenths of a second, of the clock of coarse_seconds(). */
static __always_inline u32 coarse_sixteenths(void)
{
	return (u64)JIFFIES * JIFFY_SHARE >> 28;
}

/* Whether one more record may be made in this sixteenth of a second. Two CPUs that begin one at once may make one too many. */
static __always_inline bool take_sample(struct sampling *sampling)
{
	u32 period = coarse_sixteenths();

	if (sampling->period != period) {
		sampling->period = period;
		sampling->taken = 0;
	}
	if (sampling->taken >= sampling->most)
		return false;
	__sync_fetch_and_add(&sampling->taken, 1);
	return true;
}

static __always_inline struct sample *new_sample(const struct packet *p, u32 kind)
{
	struct sample *sample = samples.ringbuf_reserve(sizeof(struct sample));

	if (!sample)
		return NULL;
	sample->time_ns = bpf_ktime_get_ns();
	sample->kind = kind;
	sample->verdict = 0;
	sample->entry = p->entry;
	sample->rule = p->rule;
	sample->service = p->service_number;
	sample->place = p->backend;
	sample->ifindex = OUR_IFINDEX;
	sample->frame_length = p->frame_length;
	sample->captured = 0;
	sample->family = p->family;
	__builtin_memcpy(sample->source, p->source6, 16);
	return sample;
}

static __always_inline void sample_packet(struct xdp_md *ctx, const struct packet *p, u32 verdict)
{
	u32 key = 0, length, limit;
	struct sampling *sampling = watching.lookup(&key);
	struct sample *sample;

	if (TRACE || !sampling || !(sampling->verdicts[verdict >> 6 & 1] >> (verdict & 63) & 1) || !take_sample(sampling))
		return;
	sample = new_sample(p, SAMPLE_LOOK);
	if (!sample)
		return;
	sample->verdict = verdict;
	length = HAVE_FRAGS ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data;
	limit = sampling->bytes ?: 1;
	if (length > limit)
		length = limit;
	if (length > SAMPLE_BYTES)
		length = SAMPLE_BYTES;
	/* Of a mask the verifier knows the bounds, whatever the compiler makes of comparisons: 1 to SAMPLE_BYTES. */
	length -= 1;
	asm volatile("" : "+r"(length));
	length = (length & (SAMPLE_BYTES - 1)) + 1;
	if (!bpf_xdp_load_bytes(ctx, 0, sample->bytes, length))
		sample->captured = length;
	samples.ringbuf_submit(sample, 0);
}

/* A source is over the limit of a rule that bans. */
static __always_inline void report_ban(const struct packet *p, u32 rule)
{
	u32 key = 1;
	struct sampling *sampling = watching.lookup(&key);
	struct sample *sample;

	if (TRACE || !sampling || !take_sample(sampling))
		return;
	sample = new_sample(p, SAMPLE_BAN);
	if (!sample)
		return;
	sample->rule = rule;
	samples.ringbuf_submit(sample, 0);
}
