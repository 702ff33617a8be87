/* Structs that maps hold of rules, limits, guards and samples; as in types.h, which has the rest. */

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
#define RULE_STEPS 48      /* words of 64 rules, and rules that let a packet go on, that are looked at for one packet */

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
#define LIMITS_MET 4      /* limits that are asked for one packet */
#define FLOW_LIMITS_MET 2 /* and of those, of new flows, when UDP opens one */
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
	__u32 before;       /* and in the second before it */
	__u32 attack_since; /* when the last attack began */
	__u32 attack_until; /* under attack until this second */
	__u32 attacks;      /* how often an attack began */
	__u32 budget;       /* new flows in a second, above which an attack begins */
	__u32 calm;         /* an attack ends once a second has had no more than this, for hold_s seconds */
	__u32 hold_s;
	__u32 flags;        /* GUARD_* */
	__u32 pad[6];
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
#define TEST_KEPT 20 /* until then no other SYN takes its place: a second, and what a retransmission may be late */

/* What goes into `samples`: watching[0] packets that are looked at, watching[1] bans; how many in a sixteenth of a second,
 * and of which verdicts. Written by the control plane, but for the first two. */
struct sampling {
	__u32 period; /* in which `taken` were taken */
	__u32 taken;
	__u32 most;
	__u32 bytes;      /* of each frame, at most SAMPLE_BYTES of sample.h */
	__u64 verdicts[2]; /* a bit for each number */
};
