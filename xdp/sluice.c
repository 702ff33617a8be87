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
#include "verdicts.h"
#include "maps.h"
#include "packet.h"
#include "hash.h"
#include "csum.h"
#include "service.h"
#include "admit.h"
#include "icmp.h"
#include "flow.h"
#include "quic.h"
#include "select.h"
#include "rewrite.h"
#include "too_big.h"
#include "encap.h"
#include "forward.h"
#include "finish.h"

static __always_inline int run_stages(struct xdp_md *ctx, struct packet *p)
{
	struct service service = {};
	struct backend *backend = NULL;
	int verdict;

	verdict = parse(ctx, p);
	if (verdict)
		return verdict;
	verdict = admit(p);
	if (verdict)
		return verdict;
	verdict = read_icmp(p);
	if (verdict)
		return verdict;
	verdict = find_service(p, &service);
	if (verdict)
		return verdict;
	verdict = select_backend(p, &service, &backend);
	if (verdict || !backend)
		return verdict;
	return forward(ctx, p, &service, backend);
}

int sluice(struct xdp_md *ctx)
{
	struct packet p = {};

	return finish(&p, run_stages(ctx, &p));
}
