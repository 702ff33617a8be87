/* Sluice's packet path: parse, admit, icmp, service, select, forward, finish.
 *
 * Each stage returns CONTINUE or the verdict that ends the packet's way; finish() counts it and is the only exit.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/udp.h>

#include "config.h"
#include "types.h"
#include "rule_types.h"
#include "verdicts.h"
#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "hash.h"
#include "trace.h"
#include "csum.h"
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
#include "select.h"
#include "rewrite.h"
#include "too_big.h"
#include "outer.h"
#include "encap.h"
#include "forward.h"
#include "finish.h"

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
	if (HAVE_RULES)
		settle(ctx, p);
	trace_stage(p, STAGE_ADMIT);
	verdict = admit(p);
	if (verdict)
		return verdict;
	trace_stage(p, STAGE_ICMP);
	verdict = read_icmp(p);
	if (verdict)
		return verdict;
	trace_stage(p, STAGE_SERVICE);
	verdict = find_service(p, &service);
	if (verdict)
		return verdict;
	if (HAVE_GUARD || HAVE_LIMIT_FLOWS)
		settle(ctx, p);
	trace_stage(p, STAGE_SELECT);
	verdict = select_backend(p, &service, &backend);
	if (verdict || !backend)
		return verdict;
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
