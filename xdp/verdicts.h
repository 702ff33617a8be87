/* Every way a packet can end. One list, read by C here and by Python with one regular expression.
 *
 * VERDICT(number, name, action, sentence). Numbers are never reused: a verdict that goes leaves a gap.
 */
#define VERDICTS(VERDICT) \
	VERDICT(1, PASS_NOT_IP, XDP_PASS, "Neither IPv4 nor IPv6 (ARP, LLDP, unknown ethertype): left to the kernel.") \
	VERDICT(2, PASS_NOT_OUR_MAC, XDP_PASS, "Destination MAC is not this interface's (other host, broadcast, multicast).") \
	VERDICT(3, PASS_PROTOCOL, XDP_PASS, "A protocol that is not balanced, or ICMP that is not answered: left to the kernel.") \
	VERDICT(4, PASS_NO_SERVICE, XDP_PASS, "No service has this address, port and protocol: left to the kernel.") \
	VERDICT(5, PASS_FRAGMENT, XDP_PASS, "A fragment for an address that is no VIP: left to the kernel.") \
	VERDICT(6, PASS_ICMP_ERROR, XDP_PASS, "An ICMP error for a VIP that quotes no flow of its services: left to the kernel.") \
	VERDICT(16, TX_L2, XDP_TX, "Forwarded to a backend by MAC rewrite.") \
	VERDICT(17, TX_IPIP, XDP_TX, "Forwarded to a backend in an outer IP header.") \
	VERDICT(18, TX_GUE, XDP_TX, "Forwarded to a backend in an outer IP and UDP header (GUE).") \
	VERDICT(19, TX_ECHO, XDP_TX, "An echo request for a VIP, answered.") \
	VERDICT(20, TX_TOO_BIG, XDP_TX, "Too big for the way once it has its outer header; the client was told.") \
	VERDICT(24, TX_NAT, XDP_TX, "Forwarded to a backend, its addresses translated.") \
	VERDICT(25, TX_NAT_REPLY, XDP_TX, "A backend's reply, translated back for the client.") \
	VERDICT(32, REDIRECT_L2, XDP_REDIRECT, "Forwarded by MAC rewrite out of another interface.") \
	VERDICT(33, REDIRECT_IPIP, XDP_REDIRECT, "Forwarded in an outer IP header out of another interface.") \
	VERDICT(34, REDIRECT_GUE, XDP_REDIRECT, "Forwarded in an outer IP and UDP header (GUE) out of another interface.") \
	VERDICT(40, REDIRECT_NAT, XDP_REDIRECT, "Forwarded out of another interface, its addresses translated.") \
	VERDICT(41, REDIRECT_NAT_REPLY, XDP_REDIRECT, "A backend's reply, translated back, out of another interface.") \
	VERDICT(48, DROP_BLOCKLIST, XDP_DROP, "The source address is on the blocklist and not on the allowlist.") \
	VERDICT(49, DROP_TRUNCATED, XDP_DROP, "The frame ends before a header, or the packet, that it announces.") \
	VERDICT(50, DROP_BAD_IPV4, XDP_DROP, "IPv4 version, header length or total length cannot be right.") \
	VERDICT(51, DROP_BAD_IPV6, XDP_DROP, "IPv6 version or payload length cannot be right.") \
	VERDICT(52, DROP_BAD_TCP, XDP_DROP, "TCP data offset is below 5 or beyond the packet.") \
	VERDICT(53, DROP_VLAN_DEPTH, XDP_DROP, "More VLAN tags than are parsed (2).") \
	VERDICT(54, DROP_IPV6_CHAIN, XDP_DROP, "More IPv6 extension headers than are parsed (6).") \
	VERDICT(55, DROP_FRAGMENT, XDP_DROP, "A fragment for a VIP: its port, so its backend, cannot be known.") \
	VERDICT(56, DROP_NO_BACKEND, XDP_DROP, "The service has no backend that takes new flows.") \
	VERDICT(57, DROP_NO_NEXT_HOP, XDP_DROP, "The backend's next-hop MAC is not known (yet).") \
	VERDICT(58, DROP_TOO_BIG, XDP_DROP, "Too big for the way once it has its outer header; the client was not told.") \
	VERDICT(59, DROP_NO_HEADROOM, XDP_DROP, "The driver left no room before the frame for the outer header.") \
	VERDICT(60, DROP_INTERNAL, XDP_DROP, "A table lookup that cannot fail failed.") \
	VERDICT(61, DROP_SPOOFED, XDP_DROP, "The source address can be no client's: this host's, loopback, multicast, or a VIP.") \
	VERDICT(62, DROP_RULE, XDP_DROP, "A rule drops what it matches.") \
	VERDICT(63, DROP_LIMIT, XDP_DROP, "Over the rate that a rule allows.") \
	VERDICT(64, DROP_SYN_TEST, XDP_DROP, "The service is under attack, the source unknown: its SYN passes when sent again.") \
	VERDICT(65, DROP_NEW_FLOW, XDP_DROP, "The service is under attack, the source unknown, the second's budget spent.") \
	VERDICT(80, DROP_NAT_PORTS, XDP_DROP, "No port of the NAT pool is free for the new flow.") \
	VERDICT(81, DROP_NAT_NO_FLOW, XDP_DROP, "For a NAT service: of no known flow, and it opens none.") \
	VERDICT(82, DROP_NAT_CLASH, XDP_DROP, "Another flow of this source has its way to the backend (nat_source keep).") \
	VERDICT(83, DROP_NAT_UNTRANSLATABLE, XDP_DROP, "It has no counterpart in the other IP family.") \
	VERDICT(84, DROP_TTL, XDP_DROP, "Its TTL or hop limit ends here.")

#define VERDICTS_MAX 128
#define ACTION_SHIFT 8

/* A verdict carries its action above its number, so that finish() needs no table. 0 is CONTINUE. */
#define VERDICT_ENUM(number, name, action, sentence) name = (number) | ((action) << ACTION_SHIFT),
enum verdict { CONTINUE, VERDICTS(VERDICT_ENUM) };
