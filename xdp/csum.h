/* The Internet checksum (RFC 1071), and its adjustment to a changed word (RFC 1624). Words are taken as they lie in memory. */
static __always_inline __be16 checksum_folded(u64 sum) /* below 2^36, so that three steps are enough */
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The same below 2^56. */
static __always_inline __be16 checksum_wide(u64 sum)
{
	return checksum_folded((sum & 0xffffffff) + (sum >> 32));
}

static __always_inline __be16 checksum_adjusted(__be16 check, u16 old, u16 new)
{
	return checksum_folded((u32)(u16)~check + (u16)~old + new);
}

/* An IPv4 header without options, of DF and no id, its checksum included. In words, whose sum is at hand. */
static __always_inline void write_ipv4(u32 *word, u8 tos, u16 length, u8 protocol, __be32 source, __be32 destination)
{
	u64 first = 0x45 | tos << 8 | (u64)bpf_htons(length) << 16;
	u64 third = OUTER_TTL | protocol << 8;

	word[0] = first;
	word[1] = bpf_htonl(0x4000); /* an atomic datagram: DF set, so the id says nothing (RFC 6864) */
	word[2] = third | (u64)checksum_folded(first + bpf_htonl(0x4000) + third + source + destination) << 16;
	word[3] = source;
	word[4] = destination;
}
