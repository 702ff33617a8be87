/* The Internet checksum (RFC 1071) of an IPv4 header without options. */
static __always_inline __be16 ipv4_checksum(const struct iphdr *ip)
{
	const u32 *word = (const u32 *)ip;
	u64 sum = (u64)word[0] + word[1] + word[2] + word[3] + word[4];

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}
