/* What the stages of NAT find out for the translation. */
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

/* What a packet's protocol is called in packets of a family: ICMP has a number for each. */
static __always_inline u8 protocol_in(const struct packet *p, u8 family)
{
	if (!HAVE_NAT_ICMP || !is_icmp(p))
		return p->protocol;
	return family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
}

/* Our MAC and, above it, the MTU of this interface. */
#define NAT_HERE (OUR_MAC_FIRST4 | (u64)OUR_MAC_LAST2 << 32 | (u64)OUR_MTU << 48)

/* For replies that come in by others: clients are behind this one. */
static __always_inline void nat_tell_interface(void)
{
	u32 key = OUR_IFINDEX & (NAT_INTERFACES - 1);
	struct nat_interface *row = HAVE_REDIRECT && !TRACE ? nat_interfaces.lookup(&key) : NULL;

	if (!row || (row->mac == NAT_HERE && row->ifindex == OUR_IFINDEX))
		return;
	write_whole(&row->mac, NAT_HERE);
	*(volatile u32 *)&row->ifindex = OUR_IFINDEX;
}

/* The same of the interface that a client is behind, as told there. */
static __always_inline u64 nat_interface_of(u32 ifindex)
{
	u32 key = ifindex & (NAT_INTERFACES - 1);
	struct nat_interface *row;

	if (!HAVE_REDIRECT || ifindex == OUR_IFINDEX)
		return NAT_HERE;
	row = nat_interfaces.lookup(&key);
	return row && row->ifindex == ifindex ? *(volatile u64 *)&row->mac : NAT_HERE;
}

/* The last of the way: MACs, interface, verdict. */
static __always_inline int nat_send(void *data, const void *end, struct packet *p, u64 mac, u64 our_mac, u32 ifindex, bool home)
{
	u32 verdict;

	if (data + sizeof(struct ethhdr) > end)
		return DROP_INTERNAL;
	*(u32 *)data = mac;
	*(u16 *)(data + 4) = mac >> 32;
	*(u32 *)(data + 6) = our_mac;
	*(u16 *)(data + 10) = our_mac >> 32;
	verdict = home ? TX_NAT_REPLY : TX_NAT;
	if (HAVE_REDIRECT && ifindex != OUR_IFINDEX) {
		p->egress_ifindex = ifindex;
		verdict = home ? REDIRECT_NAT_REPLY : REDIRECT_NAT;
	}
	return forget(verdict, p->frame_length, 0xffff); /* or the verifier walks finish() for each */
}
