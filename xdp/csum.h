/* The Internet checksum (RFC 1071), and its adjustment to a changed word (RFC 1624). Words are taken as they lie in memory. */
static __always_inline __be16 checksum_folded(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __be16 checksum_adjusted(__be16 check, u16 old, u16 new)
{
	return checksum_folded((u32)(u16)~check + (u16)~old + new);
}

/* Of an IPv4 header without options. */
static __always_inline __be16 ipv4_checksum(const struct iphdr *ip)
{
	const u32 *word = (const u32 *)ip;

	return checksum_folded((u64)word[0] + word[1] + word[2] + word[3] + word[4]);
}
