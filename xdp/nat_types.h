/* What NAT keeps of a flow. A slot is block << 16 | port: each pool address has a block of slots, so a reply's destination
 * names its entry. Each direction reads and writes a line of its own. Addresses and ports are in network order; IPv4 in
 * the first word, the others 0.
 */
#define NAT_FORMAT 1 /* what slots, states and the words of entries mean: flows of another are not taken over */
#define NAT_BLOCKS 256
#define NAT_SLOT_BITS 24
#define NAT_SLOT_MASK 0xffffff
#define NAT_INDEX_WAYS 8
#define NAT_CROWDED 6 /* words of a bucket from which on newcomers look whether the other has fewer */

/* What the client sends. */
struct nat_forward {
	__u64 word;  /* 0: free; else tag << 24 | slot, as in the index */
	__u64 state; /* last seen in seconds << 32 | NAT_* flags */
	__u32 client[4];
	__u32 vip[4];
	__u64 ports; /* client's | VIP's << 16 | protocol << 32 | family << 40 */
	__u16 service; /* number */
	__u16 place;   /* within the service */
	__u32 ifindex; /* that the client's packets come in by */
};

/* What the backend sends. Filled before the index says that the flow is there, and live last. */
struct nat_reply {
	__u64 live;  /* 0: free; else tag << 24 | protocol << 16 | backend's port. The tag is that of the reply with keep */
	__u64 state; /* as above */
	__u32 backend[4];
	__u32 client[4];
	__u8 mac[6];   /* of the client's next hop; read with what follows as one word */
	__u8 families; /* client's << 4 | backend's */
	__u8 ifindex;  /* that the client's packets come in by; 0: above 255, nat_forward has it */
	__u32 vip4; /* an IPv6 VIP stands in nat_forward alone */
	__be16 client_port;
	__be16 vip_port;
};

#define NAT_SYN 1 /* TCP: a SYN was seen; else: a packet */
#define NAT_ACK 2 /* TCP: a packet without SYN */
#define NAT_FIN 4
#define NAT_RST 8

struct nat_bucket {
	__u64 word[NAT_INDEX_WAYS]; /* tag << 24 | slot; 0: free */
} __attribute__((aligned(64)));

struct nat_pool {
	__u32 address[4];
	__u32 family; /* 4, 6; 0: the block has no address */
	__u32 pad;
};

/* nat_addresses: upper 56 bits of an address's hash, and 1 + its block, or NAT_OF_KEEP. */
struct nat_line {
	__u64 word[NAT_INDEX_WAYS];
} __attribute__((aligned(64)));
#define NAT_ADDRESS_LINES 512
#define NAT_OF_KEEP 255 /* a backend that answers clients directly */

/* The blocks that newcomers of a kind are given slots of. */
struct nat_list {
	__u64 head; /* number of blocks << 32 | first port << 16 | last port; read and written whole */
	__u16 block[NAT_BLOCKS];
};
#define NAT_LIST_KEEP 2
#define NAT_LISTS 3

struct nat_cursor {
	__u64 asked[4]; /* by list */
};

/* An interface that clients are behind, by its index's low bits: what leaves there after it came in by another. */
struct nat_interface {
	__u64 mac; /* ours there; above it the MTU */
	__u32 ifindex;
	__u32 pad;
};
#define NAT_INTERFACES 256

/* What became of flows that were not found. */
struct nat_tally {
	__u64 opened;
	__u64 reopened;   /* the entry was closing */
	__u64 no_port[NAT_LISTS]; /* none of those looked at was free */
	__u64 taken_over; /* an entry that was over, and nobody had freed */
	__u64 raced;      /* two CPUs opened one flow: an entry that was given back */
};

/* As what a packet is handed to the second program. */
#define NAT_REQUEST 1
#define NAT_REPLY 2 /* found: word is its slot */
#define NAT_ICMP 3  /* other ICMP for a pool address: word is its block */
#define NAT_KEPT 4  /* perhaps the reply of a backend of keep: word is the verdict if not */
