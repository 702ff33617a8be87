/* Sluice's packet path: parse, admit, icmp, service, select, forward, finish.
 *
 * Each stage returns CONTINUE or the verdict that ends the packet's path; finish() counts it and is the only exit.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
/* Before in.h and tcp.h: they ask for the kernel's own linux/socket.h, which takes the compiler longer than all else here. */
#include <uapi/linux/socket.h>
#define _LINUX_SOCKET_H
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/udp.h>
#include <linux/stddef.h>

#include "config.h"
#include "types.h"
#include "rule_types.h"
#include "nat_types.h"
#include "verdicts.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "hash.h"
#include "trace.h"
#include "csum.h"
#include "nat_enter.h"
#include "service.h"
#include "deny4.h"
#include "deny6.h"
#include "flow.h"
#include "sample.h"
#include "limit.h"
#include "allow.h"
#include "match.h"
#include "rules.h"
#include "admit.h"
#include "icmp.h"
#include "quic.h"
#include "guard.h"
#include "passive.h"
#include "select.h"
#include "rewrite.h"
#include "too_big.h"
#include "outer.h"
#include "encap.h"
#include "forward.h"
#include "finish.h"
#include "nat_index.h"
#include "nat_slot.h"
#include "nat_way.h"
#include "nat_rewrite.h"
#include "nat_echo.h"
#include "nat_types46.h"
#include "nat_error.h"
#include "nat_open.h"
#include "nat_request.h"
#include "nat_reply.h"
#include "nat_known.h"
#if HAVE_NAT
#include "nat_program.h"
#endif

static __always_inline int run_stages(struct xdp_md *ctx, struct packet *p)
{
	struct service service = {};
	struct backend *backend = NULL;
	int verdict;

	trace_stage(p, STAGE_PARSE);
	verdict = parse(ctx, p);
	trace_packet(p);
	if (verdict)
		return verdict;
	if (HAVE_NAT && (p->has_ports || (HAVE_NAT_ICMP && read_echo_reply(p))) && !p->fragment) {
		struct nat_reply *reply = NULL;
		u32 slot = nat_reply_slot(p, &reply);

		if (slot != NONE) {
			verdict = HAVE_NAT_ICMP && is_icmp(p) ? CONTINUE : nat_reply_known(p, slot, reply);
			return verdict ?: enter_nat(ctx, p, NULL, NAT_REPLY, slot);
		}
	}
	if (HAVE_RULES)
		settle(ctx, p);
	trace_stage(p, STAGE_ADMIT);
	verdict = admit(p);
	if (verdict)
		return verdict;
	if (HAVE_NAT && is_icmp(p) && !p->fragment) {
		u32 block = nat_block(p);

		if (block != NONE)
			return enter_nat(ctx, p, NULL, NAT_ICMP, block);
	}
	trace_stage(p, STAGE_ICMP);
	verdict = read_icmp(p);
	if (verdict)
		return verdict;
	trace_stage(p, STAGE_SERVICE);
	verdict = find_service(p, &service);
	if (HAVE_NAT_ICMP && verdict == PASS_NO_SERVICE && is_icmp(p))
		return answer_request(p) ?: PASS_PROTOCOL;
	/* Errors about what went to a backend of keep come from routers too. */
	if (HAVE_NAT_KEEP && (verdict == PASS_NO_SERVICE || verdict == PASS_PROTOCOL) && (is_icmp(p) || nat_is_of_keep(p))) {
		int known;

		settle(ctx, p);
		known = p->has_ports ? nat_kept_known(p) : CONTINUE;
		return known ?: enter_nat(ctx, p, NULL, NAT_KEPT, verdict);
	}
	if (verdict)
		return verdict;
	if (HAVE_NAT && service.flags & SERVICE_NAT) {
		verdict = HAVE_NAT_ICMP && is_icmp(p) ? CONTINUE : nat_request_known(p, &service);
		return verdict ?: enter_nat(ctx, p, &service, NAT_REQUEST, 0);
	}
	if (HAVE_GUARD || HAVE_LIMIT_FLOWS)
		settle(ctx, p);
	trace_stage(p, STAGE_SELECT);
	verdict = select_backend(p, &service, &backend);
	if (verdict || !backend)
		return verdict;
	if (HAVE_PASSIVE)
		count_unreachable(p);
	trace_stage(p, STAGE_FORWARD);
	return forward(ctx, p, &service, backend);
}

int sluice(struct xdp_md *ctx)
{
	struct packet p;

	/* Kept in memory: in registers, its members would be copied wherever two paths meet, which costs more than loads. */
	asm volatile("" : : "r"(&p) : "memory");
	if (TRACE)
		__builtin_memset(&p, 0, sizeof(p));
	p.trace = new_trace();
	if (TRACE && !p.trace)
		return finish(ctx, &p, DROP_INTERNAL);
	return finish(ctx, &p, run_stages(ctx, &p));
}
