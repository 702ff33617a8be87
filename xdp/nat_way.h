/* What the stages of NAT find out, and the translation needs. */
struct nat_tuple {
	u32 source[4];
	u32 destination[4];
	__be16 source_port;
	__be16 port;
	u8 family;
};

/* Where a packet goes, and as what. */
struct nat_way {
	struct nat_tuple to;    /* of an ICMP error: without ports */
	struct nat_tuple quote; /* of an ICMP error: as what the packet it quotes is quoted */
	u64 mac;                /* of the next hop, in the low 48 bits */
	u64 our_mac;
	u32 ifindex;
	u32 mtu; /* 0: unknown */
	bool home; /* to the client */
};
