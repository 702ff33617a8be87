/* Strips the outer headers of tunnelled packets on a backend, so that it needs no tunnel device.
 *
 * Stripped: 4in4 (RFC 2003), 6in4 (RFC 4213), 4in6 and 6in6 (RFC 2473), and GUE over IPv4 and IPv6, where the outer
 * destination is one of `tunnel_ends`. Of GUE (draft-ietf-intarea-gue) variant 1, in which the IP packet follows the UDP
 * header, and variant 0 with its four bytes alone; the UDP checksum is not asked, the packet inside has its own.
 * What was inside then goes up the backend's own stack as if it had come unencapsulated. All else is passed unchanged:
 * plain traffic, ARP, tunnels to other addresses, GUE control messages and options, fragments of an outer packet, an
 * outer IPv6 header with extensions, VLAN tags that the card did not strip, anything truncated. The kernel decides on
 * those.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
/* Before in.h and tcp.h: they ask for the kernel's own linux/socket.h, which takes the compiler longer than all else here. */
#include <uapi/linux/socket.h>
#define _LINUX_SOCKET_H
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/udp.h>

#ifndef GUE_PORT
#define GUE_PORT 6080 /* the balancer's setting gue_port */
#endif
#define GUE_FIELDS 4 /* bytes of variant 0 without options: variant and length, protocol, flags */
#define IPV4_MORE_FRAGMENTS_OR_OFFSET 0x3fff

/* Outer destinations to strip; IPv4 as ::ffff:a.b.c.d. The loader writes it, the value says nothing. */
BPF_HASH(tunnel_ends, struct in6_addr, u8, 64);

static __always_inline bool ends_here4(__be32 address)
{
	struct in6_addr key = {};

	key.s6_addr16[5] = 0xffff;
	key.s6_addr32[3] = address;
	return tunnel_ends.lookup(&key) != NULL;
}

static __always_inline bool ends_here6(const struct in6_addr *address)
{
	struct in6_addr key = *address;

	return tunnel_ends.lookup(&key) != NULL;
}

static __always_inline bool is_tunnel(u8 protocol)
{
	return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_UDP;
}

/* The length of the outer header, and what it says is inside; 0 if the packet is not to be stripped. */
static __always_inline u32 outer_length4(const struct iphdr *outer, const void *end, u8 *inside)
{
	if ((const void *)(outer + 1) > end || outer->version != 4 || outer->ihl < 5)
		return 0;
	if (outer->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS_OR_OFFSET))
		return 0;
	*inside = outer->protocol;
	return is_tunnel(*inside) && ends_here4(outer->daddr) ? outer->ihl * 4 : 0;
}

static __always_inline u32 outer_length6(const struct ipv6hdr *outer, const void *end, u8 *inside)
{
	if ((const void *)(outer + 1) > end || outer->version != 6)
		return 0;
	*inside = outer->nexthdr;
	return is_tunnel(*inside) && ends_here6(&outer->daddr) ? sizeof(*outer) : 0;
}

/* The length of UDP's and GUE's own headers, and what they say is inside; 0 if this is not GUE that can be taken off. */
static __always_inline u32 gue_length(const struct udphdr *udp, const void *end, u8 *inside)
{
	const u8 *gue = (const u8 *)(udp + 1);

	if ((const void *)(gue + 1) > end || udp->dest != bpf_htons(GUE_PORT))
		return 0;
	if (gue[0] >> 6 == 1) {
		/* Variant 1: these two bits are the first of the IP version, 4 (0100) or 6 (0110). */
		*inside = gue[0] >> 4 == 4 ? IPPROTO_IPIP : IPPROTO_IPV6;
		return sizeof(*udp);
	}
	if ((const void *)(gue + GUE_FIELDS) > end || gue[0] || gue[2] || gue[3])
		return 0;
	*inside = gue[1];
	return sizeof(*udp) + GUE_FIELDS;
}

/* The ethertype of the packet inside; 0 if it is not an IP packet of the family that the outer header promised. */
static __always_inline __be16 inner_type(const u8 *inner, const void *end, u8 inside)
{
	u8 version;

	if ((const void *)(inner + 1) > end)
		return 0;
	version = *inner >> 4;
	if (inside == IPPROTO_IPIP && version == 4)
		return bpf_htons(ETH_P_IP);
	if (inside == IPPROTO_IPV6 && version == 6)
		return bpf_htons(ETH_P_IPV6);
	return 0;
}

int decap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data, link;
	u8 inside = IPPROTO_NONE;
	u32 length = 0, more;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		length = outer_length4((void *)(eth + 1), end, &inside);
	else if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		length = outer_length6((void *)(eth + 1), end, &inside);
	if (!length)
		return XDP_PASS;
	if (inside == IPPROTO_UDP) {
		more = gue_length((void *)(eth + 1) + length, end, &inside);
		if (!more)
			return XDP_PASS;
		length += more;
	}

	link = *eth;
	link.h_proto = inner_type((void *)(eth + 1) + length, end, inside);
	if (!link.h_proto)
		return XDP_PASS;
	if (bpf_xdp_adjust_head(ctx, length))
		return XDP_PASS;
	eth = (void *)(long)ctx->data;
	/* Never true: the frame held the outer header and a byte more. The verifier wants to see it. */
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	*eth = link;
	return XDP_PASS;
}
