/* Every struct that a map holds, defined here and nowhere else: Python takes them from the compiled program.
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
	__u32 pad[7];
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

#define RULE_WORDS 16 /* of 64 rules */
/* Rules: each field of a packet has a table that says which class its value is in, and each class a row of rule_sets: which
 * rules want such a value. The rules that all rows of a packet have in common match it (Lakshman and Stiliadis, SIGCOMM
 * 1998). Rules stand in the order in which they are asked: bit 0 of word[0] is the first. */
struct rule_set {
	__u64 some; /* bit n: word[n] is not 0 */
	__u64 word[RULE_WORDS];
};

/* Tables of rules are there twice, in two banks: the bank not in use is written, and one write of `bank` switches. */
struct rule_bank {
	__u32 bank;
	__u32 pad;
};

/* What a trie of prefixes says: the class in each bank. Without an entry the class is 0. */
struct rule_classes {
	__u16 in[2];
};

/* Fields, and the first of each bank's rows of rule_sets is field * RULE_CLASSES. */
#define RULE_SOURCE 0      /* the source address: class by rule_sources4, rule_sources6 */
#define RULE_DESTINATION 1 /* the destination address, as it came */
#define RULE_SOURCE_PORT 2 /* these by rule_cells; a packet without ports is in class 0 of both */
#define RULE_PORT 3
#define RULE_LENGTH 4      /* of the IP packet, as it says itself */
#define RULE_KIND 5        /* fragment, protocol and TCP flags: RULE_KIND_* */
#define RULE_FIELDS 6
#define RULE_CLASSES 4096
#define RULES_MAX 1024
#define RULE_STEPS 96      /* words and rules that are looked at for one packet */
#define RULE_CONTINUES_MAX 64 /* rules that may let a packet go on (count, limit, or in count-only mode) */

/* rule_cells, of each bank: the class of every value of a field, from these cells on. */
#define RULE_CELLS_SOURCE_PORT 0
#define RULE_CELLS_PORT 65536
#define RULE_CELLS_LENGTH 131072
#define RULE_CELLS_KIND 196608
#define RULE_CELLS_VALUES 387 /* of 512 cells: 65536 * 3 + 1536 of them are used */
#define RULE_KIND_TCP 256     /* + the flags byte: TCP with its header; any other packet: its protocol's number */
#define RULE_KIND_FIRST 512   /* + this: a first fragment */
#define RULE_KIND_LATER 1024  /* + this: a later one */

/* What a rule does, by its position in the order: rule_actions[bank * RULES_MAX + position]. */
struct rule_action {
	__u64 cost;   /* a limit: what one unit takes, in ticks; 2^LIMIT_TICK_SHIFT ticks are a nanosecond */
	__u64 burst;  /* a limit: how many ticks a bucket may be ahead of the clock: cost of all units of a burst */
	__u32 heavy;  /* a limit by source: units in one second from which a source gets a bucket of its own */
	__u16 number; /* of rule_counters and limit_totals: stays the rule's own, whatever its position */
	__u8 action;  /* RULE_* */
	__u8 unit;    /* LIMIT_* */
	__u8 length4; /* a limit by source: so many bits of its address count; LIMIT_TOTAL: one bucket for all */
	__u8 length6;
	__u8 flags;   /* RULE_COUNT_ONLY, RULE_BANS */
	__u8 pad[5];
};

#define RULE_DROP 1
#define RULE_COUNT 2
#define RULE_LIMIT 3
#define RULE_ALLOW 4
#define RULE_COUNT_ONLY 1 /* what it would drop is counted, and goes on */
#define RULE_BANS 2       /* who is over the limit is reported by `samples`, to be banned */
#define LIMIT_PACKETS 1
#define LIMIT_BYTES 2
#define LIMIT_FLOWS 3
#define LIMIT_TOTAL 255
#define LIMIT_TICK_SHIFT 10

/* What a rule matched, and of it what was dropped (or would have been, in count-only mode). */
struct rule_tally {
	__u64 packets;
	__u64 bytes;
	__u64 dropped_packets;
	__u64 dropped_bytes;
	__u64 last_s; /* of coarse_seconds() */
};

/* A rule's bucket by the generic cell rate algorithm (ITU-T I.371): when all that went through it is paid for, in ticks of
 * the monotonic clock. One word, changed by compare-and-swap: exact, whichever CPUs packets come in by. */
struct limit_total {
	__u64 paid_until;
	__u64 pad[7]; /* a cache line each */
};

#define LIMIT_WAYS 4
/* A heavy source's bucket. key: keyed 48-bit tag of rule and source, and the rule's number below; 0: free. */
struct limit_slot {
	__u64 key;
	__u64 paid_until;
};

struct limit_bucket {
	struct limit_slot way[LIMIT_WAYS];
} __attribute__((aligned(64)));

/* A cell of the sketch: units seen in a second. The least of a source's LIMIT_ROWS cells is never less than its own. */
struct limit_cell {
	__u32 second;
	__u32 units;
};
#define LIMIT_ROWS 2
#define LIMIT_CELLS 65536

/* New flows of a guarded service. The first members are written by packets, the others by the control plane. */
struct service_guard {
	__u32 second;       /* of coarse_seconds() */
	__u32 opened;       /* new flows asked for in it */
	__u32 attack_until; /* under attack until this second */
	__u32 attacks;      /* how often an attack began */
	__u32 budget;       /* new flows in a second, above which an attack begins */
	__u32 calm;         /* an attack ends once a second has had no more than this, for hold_s seconds */
	__u32 hold_s;
	__u32 flags;        /* GUARD_* */
	__u32 pad[8];
};
#define GUARD_TEST 1 /* TCP: who is unknown may come in by sending its SYN again */

/* Of a guarded service under attack. */
struct guard_tally {
	__u64 known;   /* new flows of known sources: passed */
	__u64 tested;  /* SYNs dropped, to be sent again */
	__u64 proven;  /* SYNs that were sent again: passed */
	__u64 refused; /* over the budget */
	__u64 learned; /* sources that became known, under attack or not */
	__u64 pad[3];
};

/* A line of sixteen cells; those of known_sources: tag << KNOWN_AGE_BITS | hour, of syn_tests: tag << TEST_AGE_BITS | time in
 * sixteenths of a second. 0: free. */
struct cell_line {
	__u32 cell[16];
} __attribute__((aligned(64)));
#define KNOWN_LINES 65536
#define KNOWN_AGE_BITS 10
#define KNOWN_HOURS 168 /* how long a source stays known after it was last seen to open a flow */
#define TEST_AGE_BITS 14
#define TEST_SOONEST 8 /* sixteenths of a second: what comes sooner is no retransmission (RFC 6298: 1 s) */
#define TEST_LATEST 64

/* What goes into `samples`: watching[0] packets that are looked at, watching[1] bans; how many in a sixteenth of a second,
 * and of which verdicts. Written by the control plane, but for the first two. */
struct sampling {
	__u32 period; /* in which `taken` were taken */
	__u32 taken;
	__u32 most;
	__u32 bytes;      /* of each frame, at most SAMPLE_BYTES of sample.h */
	__u64 verdicts[2]; /* a bit for each number */
};

/* Whose an entry's or a rule's number is: the control plane's own note, kept with the counters so that both survive it. */
struct entry_owner {
	__u64 identity;
};
