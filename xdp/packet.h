/* struct packet: what the stages know of a frame, and tell each other. */
struct packet {
	void *data;
	void *end; /* of the linear part */
	struct trace *trace; /* with TRACE */
	u32 frame_length;
	u32 l3; /* offset of the IP header */
	u32 l4; /* offset of what follows the IP header and its extensions; 0: a later fragment */
	/* Set by the stages after parse, read by finish(). */
	u32 backend;         /* the place in `backends`; NONE: none chosen */
	u32 service_number;  /* NONE: none found */
	u32 egress_ifindex;
	u16 l3_length; /* of the whole IP packet as it says itself; what follows in the frame is padding */
	u16 source_port; /* network order */
	u16 port;        /* of the destination, network order */
	u8 family; /* 4 or 6 */
	u8 protocol;
	union { /* what is false or 0 until parse finds it */
		u32 marks;
		struct {
			u8 tcp_flags;
			bool fragment;  /* any fragment */
			bool has_ports; /* TCP or UDP, and not a later fragment; or echo of NAT, see icmp.h */
			u8 quoted;      /* an ICMP error: addresses, protocol and ports are those of the flow it quotes; QUOTED_* */
		};
	};
	u32 traffic_class;
	u32 entry; /* of the blocklist: the source's; 0: none. With HAVE_SAMPLES, as the next */
	u32 rule;  /* number of the rule that decided; NONE: none */
	u64 flow_limits; /* limits of new flows that wait for select, sixteen bits each: 1 + position in rule_actions */
	union {
		u32 source4;
		u32 source6[4];
	};
	union {
		u32 vip4;
		u32 vip6[4];
	};
};

#define QUOTED 1
#define QUOTED_UNREACHABLE 2 /* and says that the packet did not get to where it went */
#define L3_MOST 31     /* masks: two VLAN tags end at 22, */
#define L4_MOST 0x3fff /* and six IPv6 extensions of 2 KB at 12,350 */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define IPV4_FRAGMENT_OFFSET 0x1fff

struct vlan_tag {
	__be16 control;
	__be16 next_type;
};

/* The verifier walks every path with all it knows of each value: of what went through an unknown word it knows only the
 * mask `most`, and many paths are one again. */
static __always_inline u32 forget(u32 value, u32 unknown, u32 most)
{
	value ^= unknown;
	asm volatile("" : "+r"(value), "+r"(unknown));
	return (value ^ unknown) & most;
}

/* The same for all bits of a word: not even how large it is. */
static __always_inline u64 forget_all(u64 value, u64 unknown)
{
	value ^= unknown;
	asm volatile("" : "+r"(value), "+r"(unknown));
	return value ^ unknown;
}

/* A word of which the verifier knows nothing, to forget others with. */
static __always_inline u64 unknown_word(const struct packet *p)
{
	u64 unknown = p->frame_length * 0x9e3779b97f4a7c15ULL;

	asm volatile("" : "+r"(unknown));
	return unknown;
}

/* The larger of two numbers below 2^63, without a branch: in an unrolled search each would double the paths. */
static __always_inline u64 larger(u64 a, u64 b)
{
	u64 take_b = (s64)(a - b) >> 63;

	asm volatile("" : "+r"(take_b));
	return a ^ ((a ^ b) & take_b);
}

/* 1 if the value is 0, else 0, without a branch. */
static __always_inline u64 is_zero(u64 value)
{
	return ~(value | -value) >> 63;
}

/* All that the verifier knows of the packet, and of where its headers are, is forgotten: before a stage of many paths, which
 * is thus walked once and not for every kind of packet. The stages look again at what they read. */
static __always_inline void settle(struct xdp_md *ctx, struct packet *p)
{
	u32 unknown = p->frame_length;

	p->data = (void *)(long)ctx->data;
	p->end = (void *)(long)ctx->data_end;
	p->l3 = forget(p->l3, unknown, L3_MOST);
	p->l4 = forget(p->l4, unknown, L4_MOST);
	p->family = forget(p->family, unknown, 6);
	p->protocol = forget(p->protocol, unknown, 0xff);
	p->marks = forget(p->marks, unknown, ~0U);
}
