/* Types and codes of ICMP errors in the other family (RFC 7915, 4.2 and 5.2). */
/* Type, code and the four bytes after the checksum, in the other family: type << 8 | code, or NONE. */
static __always_inline u32 icmp_to_6(u8 type, u8 code, u32 *rest)
{
	u32 host = bpf_ntohl(*rest), pointer = host >> 24, mtu = host & 0xffff;

	*rest = 0;
	if (type == 3) {
		if (code == 2) {
			*rest = bpf_htonl(6); /* the next header */
			return 4 << 8 | 1;
		}
		if (code == 3)
			return 1 << 8 | 4;
		if (code == 4) {
			mtu += 20;
			*rest = bpf_htonl(mtu < 1280 ? 1280 : mtu);
			return 2 << 8;
		}
		if (code == 14 || code > 15)
			return NONE;
		return code == 9 || code == 10 || code == 13 || code == 15 ? 1 << 8 | 1 : 1 << 8;
	}
	if (type == 11)
		return 3 << 8 | code;
	if (code != 0 && code != 2)
		return NONE;
	/* Which field is wrong: version, class, length, hop limit, next header, addresses. */
	pointer = pointer < 2 ? pointer : pointer < 4 ? 4 : pointer == 8 ? 7 : pointer == 9 ? 6 : pointer < 12 || pointer > 19 ? NONE :
		  pointer < 16 ? 8 : 24;
	if (pointer == NONE)
		return NONE;
	*rest = bpf_htonl(pointer);
	return 4 << 8;
}

static __always_inline u32 icmp_to_4(u8 type, u8 code, u32 *rest)
{
	u32 host = bpf_ntohl(*rest);

	*rest = 0;
	if (type == 1) {
		if (code > 4)
			return NONE;
		return code == 1 ? 3 << 8 | 10 : code == 4 ? 3 << 8 | 3 : 3 << 8 | 1;
	}
	if (type == 2) {
		host = host < 1280 ? 1280 : host > 0xffff ? 0xffff : host;
		*rest = bpf_htonl(host - 20);
		return 3 << 8 | 4;
	}
	if (type == 3)
		return 11 << 8 | code;
	if (code == 1)
		return 3 << 8 | 2;
	if (code != 0)
		return NONE;
	host = host < 2 ? host : host < 4 ? NONE : host < 6 ? 2 : host == 6 ? 9 : host == 7 ? 8 : host < 24 ? 12 :
	       host < 40 ? 16 : NONE;
	if (host == NONE)
		return NONE;
	*rest = bpf_htonl(host << 24);
	return 12 << 8;
}
