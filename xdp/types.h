/* Every struct that a map holds, defined here (or in rule_types.h, nat_types.h) and nowhere else: Python parses these files for
 * its numpy layouts.
 *
 * __be fields are in network byte order, as they lie in packets. Words that both sides write while packets flow
 * are aligned u64 or u32, written whole, so that no reader sees half of one.
 */
struct service4_key {
	__be32 vip;
	__be16 port; /* 0: any port */
	__u8 protocol; /* 0, with port 0: the address is a VIP of some service */
	__u8 pad;
};

struct service6_key {
	__u32 vip[4];
	__be16 port;
	__u8 protocol;
	__u8 prefix; /* 0: vip is an address; else the length of the prefix whose network it is */
};

/* What the trie of VIP prefixes says: the vip and prefix of the services6 keys to ask. */
struct vip_prefix {
	__u32 network[4];
	__u32 length;
};

/* What a service lookup finds: all that an established flow needs of its service. */
struct service {
	__u32 backends; /* the first of the service's places in `backends` */
	__u16 number;   /* index of service_rings and service_counters */
	__u8 flags;     /* SERVICE_* */
	__u8 room;      /* how many places, as a power of two: the control plane's note */
};

#define SERVICE_L2 1              /* mode l2; neither l2 nor gue: ipip */
#define SERVICE_SOURCE_AFFINITY 2 /* the ring hashes the source address alone */
#define SERVICE_PORT_AFFINITY 4   /* the ring hashes the destination port alone */
#define SERVICE_GUE 8             /* mode gue */
#define SERVICE_UDP_MIGRATION 16  /* flows leave a backend that takes no new ones */
#define SERVICE_QUIC 32           /* connection ids are read */
#define SERVICE_NAT 128           /* mode nat */
#define SERVICE_GUARD 64          /* it has a row of service_guards: new flows are counted, and tested under attack */

/* services4 and services6: a key's bucket is one cache line. A slot is free while its last key word is 0, which is written
 * last and cleared first; a last slot that says SERVICE_MORE sends those that found no room to services4_more, services6_more. */
struct service4_slot {
	__u64 key; /* struct service4_key */
	struct service service;
};

struct service4_bucket {
	struct service4_slot slot[4];
} __attribute__((aligned(64)));

struct service6_slot {
	__u64 vip[2];
	__u64 key; /* what follows vip in struct service6_key, and SERVICE6_USED */
	struct service service;
};

struct service6_bucket {
	struct service6_slot slot[2];
} __attribute__((aligned(64)));

#define SERVICE_MORE 0xffffffffffffffff
#define SERVICE6_USED 0x100000000
#define SERVICE4_MIX 0x9e3779b97f4a7c15 /* odd: Knuth's multiplicative hash; the bucket is its middle bits */
#define SERVICE6_MIX 0xff51afd7ed558ccd

/* Which addresses may be VIPs, a bit for each of 8192 hashes: answers for nearly all sources without a cache line of theirs. */
struct vip_bits {
	__u64 word[128];
};

/* Which ring a service uses: the switch from an old ring to a new one is one write of `ring`. */
struct service_ring {
	__u32 ring; /* index of `rings`; 0 is never written: no backend */
	__u32 pad;
};

/* Whose a service's number is, and where its places are: the control plane's note. By it flows find their backends again
 * when tables of another layout or size take over. */
struct service_owner {
	__u64 identity; /* of the service's name; 0: nobody's */
	__u32 backends; /* as in struct service */
	__u32 room;
};

/* A kilobyte of u16 cells. Large arrays are maps of these: an array map rounds every value up to 8 bytes, so single
 * cells would waste three quarters, and the compiler takes seconds over values of thousands of elements. */
struct cells {
	__u16 cell[512];
};
#define CELLS_SHIFT 9
#define CELLS_MASK 511

/* A Maglev ring is RING_CELLS values of `rings`. A slot holds a backend's place within its service, so services with
 * equal sets share a ring. */
#define RING_CELLS 129 /* of 512 slots: 66048, of which RING_SLOTS are used */

/* A backend's place: where a packet for it goes. One cache line. */
struct backend {
	__u8 mac[6]; /* of the next hop; written with state as one word */
	__u8 state;  /* BACKEND_* */
	__u8 family; /* 4 or 6: the outer header's */
	__u8 source_mac[6];
	__u16 mtu; /* of the way there, for the whole IP packet; 0: unknown */
	__u32 address[4]; /* network order; IPv4 in the first */
	__u32 ifindex;
	__be16 port;   /* mode nat: of the backend; 0: the port that came */
	__u16 nat_keep; /* mode nat: 1: the client's address stays the source */
	__u32 pad[6];
};

#define BACKEND_ACTIVE 1   /* takes packets of flows it has; new ones come by the ring */
#define BACKEND_RESOLVED 2 /* mac is known */
#define BACKEND_IN_RING 4  /* takes new flows */

/* A backend's number within QUIC connection ids. The value is the backend's place within the service. */
struct quic_key {
	__u32 id;
	__u16 service;
	__u16 pad;
};

/* A slot of the flow table. tag_backend: keyed 48-bit tag of the flow in the high bits, the backend's place in the
 * low 16; 0 is an empty slot. Read and written whole: a flow never sees half an entry, and there is no lock. */
struct flow {
	__u64 tag_backend;
	__u64 state; /* FLOW_STATE: last seen in seconds << 32 | service << 16 | class; written only when it changes */
};

struct flow_bucket {
	struct flow way[FLOW_WAYS];
} __attribute__((aligned(64)));

#define FLOW_PROBATION 1   /* a newcomer: the first to be evicted */
#define FLOW_ESTABLISHED 2 /* a later packet came (TCP: one without SYN) */
#define FLOW_UDP 4
#define FLOW_OPENED 8      /* its SYN came by here */
#define FLOW_CLOSED 16     /* its client has sent FIN or RST */
#define FLOW_COPY 32       /* taken over from a smaller table, into each bucket that may be the flow's; its next packet clears it */
#define FLOW_FORMAT 1      /* what tags and places mean and how a bucket is found: no others are taken over */

/* deny4_cells, DIR-24-8 by /24: a cell is an entry number, or DENY_LONGER | index of the /24's line in its /16's run. */
#define DENY_LONGER 0x8000

/* Of each of 256 /16s: where its run starts in deny4_lines (24 bits), and above it the run's room in units of 4 lines. */
struct deny_runs {
	__u32 line[256];
};

/* The prefixes longer than /24 of one /24. word[0]: entry number of the covering prefix (0: none).
 * word[1…15]: entry << 16 | last byte << 8 | bits beyond 24 (1…8), the first 0 ends the line;
 * or, in word[1], DENY_DENSE | index of deny4_dense where fifteen are not enough. */
struct deny_line {
	__u32 word[16];
} __attribute__((aligned(64)));
#define DENY_DENSE 0xff

/* Entry numbers of all 256 addresses of a /24. */
struct deny_dense {
	__u16 entry[256];
};

/* deny6_filter: a kilobyte of cells, one for a hash of an address's first 32 bits: which kinds of prefixes are there. */
struct deny6_cells {
	__u8 cell[1024];
};
#define DENY6_VALUES 64
#define DENY6_CELLS_SHIFT 10
#define DENY6_CELLS_MASK 1023
#define DENY6_MIX 0x9e3779b1 /* a prime near 2^32 over the golden ratio; the cell is the product's high 16 bits */
#define DENY6_HOST 1  /* a /128 */
#define DENY6_NET64 2 /* a /64 */
#define DENY6_OTHER 4 /* any other; set in every cell while there is a prefix shorter than the 32 bits */
/* deny6_trie holds entry | length << 16, so that what it finds can be compared with a /64. */
#define DENY6_LENGTH_SHIFT 16

struct prefix4_key {
	__u32 length;
	__be32 address;
};

struct prefix6_key {
	__u32 length;
	__u32 address[4];
};

struct tally {
	__u64 packets;
	__u64 bytes; /* of frames as received */
};

struct entry_tally {
	__u64 packets;
	__u64 bytes;
	__u64 last_s; /* of coarse_seconds() */
};

/* What became of flows that were not found. Hits are not counted: they are what was forwarded less these. */
struct flow_tally {
	__u64 misses;    /* the ring chose */
	__u64 evictions; /* and another flow lost its slot */
	__u64 untracked; /* or none could: the flow goes by the ring alone */
	__u64 pad;
};

/* What clients' packets tell of a backend. */
struct passive_tally {
	__u64 syn_retries;  /* a SYN sent again, for there was no answer that the client went on from */
	__u64 unreachables; /* ICMP: the answers to a flow do not get to its client */
};

/* What was read of the packets of QUIC services. */
struct quic_tally {
	__u64 by_id;
	__u64 unknown; /* the id names no backend that takes packets */
	__u64 without; /* no id: a client's first packets, or too short */
	__u64 pad;
};

/* How many ICMP answers were sent in a second of coarse_seconds(). */
struct budget {
	__u32 second;
	__u32 sent;
};

/* Whose an entry's or a rule's number is: the control plane's own note, kept with the counters so that both survive it. */
struct entry_owner {
	__u64 identity;
};
