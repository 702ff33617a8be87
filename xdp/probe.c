/* Sends health checks along the path of clients' packets: a separate tc program, on the egress of `lo`.
 *
 * The control plane marks a check's socket with the backend's place, and routes what is so marked to `lo` (see
 * lb/dataplane/probe_path.py). Here such a packet for a VIP is sent to that very backend, whatever the ring says, by the
 * same map and in the same headers as in the packet path, and leaves by the interface that leads to the backend.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
/* Before in.h and tcp.h: they ask for the kernel's own linux/socket.h, which takes the compiler longer than all else here. */
#include <uapi/linux/socket.h>
#define _LINUX_SOCKET_H
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/pkt_cls.h>
#include <uapi/linux/udp.h>

#include "config.h"
#include "types.h"
#include "rule_types.h"
#include "nat_types.h"
#include "verdicts.h"
#include "maps.h"
#include "packet.h"
#include "csum.h"
#include "outer.h"

struct ports {
	__be16 source;
	__be16 destination;
};

/* What the outer headers are made of. False for what no check sends. */
static __always_inline bool read_inner(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	void *l3 = data + sizeof(struct ethhdr);
	struct ports *ports;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = l3;

		if ((void *)(ip + 1) > end || ip->ihl != 5)
			return false;
		p->family = 4;
		p->traffic_class = ip->tos;
		p->l3_length = bpf_ntohs(ip->tot_len);
		p->source4 = ip->saddr;
		ports = (void *)(ip + 1);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = l3;

		if ((void *)(ip + 1) > end)
			return false;
		p->family = 6;
		p->traffic_class = bpf_ntohl(*(__be32 *)ip) >> 20 & 0xff;
		p->l3_length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
		__builtin_memcpy(p->source6, &ip->saddr, 16);
		ports = (void *)(ip + 1);
	} else {
		return false;
	}
	if ((void *)(ports + 1) > end)
		return false;
	p->source_port = ports->source;
	return true;
}

static __always_inline bool grow(struct __sk_buff *skb, const struct backend *backend, bool gue)
{
	u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	flags |= backend->family == 4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	if (gue)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	return !bpf_skb_adjust_room(skb, encap_overhead(backend, gue), BPF_ADJ_ROOM_MAC, flags);
}

static __always_inline bool write_headers(struct __sk_buff *skb, const struct packet *p, const struct backend *backend, bool gue)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	void *outer = data + sizeof(struct ethhdr);

	if (backend->family == 4) {
		if (outer + sizeof(struct iphdr) + sizeof(struct udphdr) > end)
			return false;
		*(__be16 *)(data + 12) = bpf_htons(ETH_P_IP);
		write_outer4(outer, p, backend, gue);
		outer += sizeof(struct iphdr);
	} else {
		if (outer + sizeof(struct ipv6hdr) + sizeof(struct udphdr) > end)
			return false;
		*(__be16 *)(data + 12) = bpf_htons(ETH_P_IPV6);
		write_outer6(outer, p, backend, gue);
		outer += sizeof(struct ipv6hdr);
	}
	if (gue)
		write_gue(outer, p);
	return true;
}

static __always_inline bool write_ethernet(struct __sk_buff *skb, const struct backend *backend)
{
	void *data = (void *)(long)skb->data;

	if (data + sizeof(struct ethhdr) > (void *)(long)skb->data_end)
		return false;
	__builtin_memcpy(data, backend->mac, ETH_ALEN);
	__builtin_memcpy(data + ETH_ALEN, backend->source_mac, ETH_ALEN);
	return true;
}

int probe(struct __sk_buff *skb)
{
	u32 mark = skb->mark, place = mark & PROBE_PLACE_MASK, mode = mark >> PROBE_MODE_SHIFT & PROBE_MODE_MASK;
	struct packet p = {};
	struct backend *backend;

	if ((mark & PROBE_MARK_MASK) != PROBE_MARK)
		return TC_ACT_OK;
	backend = backends.lookup(&place);
	/* None of it may go on to be taken for this machine's own. */
	if (!backend || !(backend->state & BACKEND_RESOLVED) || !read_inner(skb, &p))
		return TC_ACT_SHOT;
	if (mode != PROBE_L2) {
		bool gue = mode == PROBE_GUE;

		if (!grow(skb, backend, gue) || !write_headers(skb, &p, backend, gue))
			return TC_ACT_SHOT;
	}
	if (!write_ethernet(skb, backend))
		return TC_ACT_SHOT;
	skb->mark = 0;
	return bpf_redirect(backend->ifindex, 0);
}
