/* What one build of the program is: features, addresses and sizes, given with -D by the control plane.
 *
 * A feature that is 0 is not compiled in: stages ask with a plain `if (HAVE_…)`, which the compiler removes.
 * The values here are those of a build by hand, with everything in it.
 *
 * What differs between interfaces and machines, and settings that are numbers, are late: 64 bits that the loader finds in the
 * program and replaces (lb/dataplane/bytecode.py). The compiler does not see the number; the verifier and the JIT see a
 * constant. The second argument is the default.
 */
#define LATE_MARK 0x51ce51ce
#define LATE(number, usual) LATE_LOAD(LATE_MARK, number)
#define LATE_LOAD(mark, number) ({ u64 late; asm volatile("%0 = " LATE_TEXT(mark) "000000" #number " ll" : "=r"(late)); late; })
#define LATE_TEXT(mark) #mark

#ifndef HAVE_DENY4 /* the blocklist holds IPv4 prefixes */
#define HAVE_DENY4 1
#endif
#ifndef HAVE_DENY6 /* the blocklist holds IPv6 prefixes */
#define HAVE_DENY6 1
#endif
#ifndef HAVE_ALLOW /* the allowlist holds anything */
#define HAVE_ALLOW 1
#endif
#ifndef HAVE_RULES /* there are rules */
#define HAVE_RULES 1
#endif
#ifndef HAVE_RULE_SOURCE /* a rule names a source prefix */
#define HAVE_RULE_SOURCE 1
#endif
#ifndef HAVE_RULE_DESTINATION /* a rule names a destination prefix or a service */
#define HAVE_RULE_DESTINATION 1
#endif
#ifndef HAVE_RULE_SOURCE_PORT /* a rule names source ports */
#define HAVE_RULE_SOURCE_PORT 1
#endif
#ifndef HAVE_RULE_PORT /* a rule names destination ports or a service */
#define HAVE_RULE_PORT 1
#endif
#ifndef HAVE_RULE_LENGTH /* a rule names packet lengths */
#define HAVE_RULE_LENGTH 1
#endif
#ifndef HAVE_RULE_ALLOW /* a rule allows */
#define HAVE_RULE_ALLOW 1
#endif
#ifndef HAVE_LIMIT /* a rule limits */
#define HAVE_LIMIT 1
#endif
#ifndef HAVE_LIMIT_SOURCE /* a rule limits each source, or prefix of sources, by itself */
#define HAVE_LIMIT_SOURCE 1
#endif
#ifndef HAVE_LIMIT_FLOWS /* a rule limits new flows */
#define HAVE_LIMIT_FLOWS 1
#endif
#ifndef HAVE_BANS /* a rule reports who is over its limit */
#define HAVE_BANS 1
#endif
#ifndef HAVE_GUARD /* a service is guarded against floods of new flows */
#define HAVE_GUARD 1
#endif
#ifndef HAVE_SAMPLES /* somebody looks at samples */
#define HAVE_SAMPLES 1
#endif
#ifndef HAVE_PROBES /* backends are checked through the data path: answers have a VIP as source */
#define HAVE_PROBES 1
#endif
#ifndef HAVE_PASSIVE /* it is counted what clients' packets tell of backends */
#define HAVE_PASSIVE 1
#endif
#ifndef HAVE_VIP4 /* a service has an IPv4 VIP */
#define HAVE_VIP4 1
#endif
#ifndef HAVE_VIP6 /* a service has an IPv6 VIP */
#define HAVE_VIP6 1
#endif
#ifndef HAVE_ANY_PORT /* a service takes every port */
#define HAVE_ANY_PORT 1
#endif
#ifndef HAVE_SOURCE_AFFINITY /* a service hashes the source address alone */
#define HAVE_SOURCE_AFFINITY 1
#endif
#ifndef HAVE_PORT_AFFINITY /* a service hashes the destination port alone */
#define HAVE_PORT_AFFINITY 1
#endif
#ifndef HAVE_VIP_PREFIX /* a VIP is an IPv6 prefix */
#define HAVE_VIP_PREFIX 1
#endif
#ifndef HAVE_QUIC /* a service routes by QUIC connection id */
#define HAVE_QUIC 1
#endif
#ifndef HAVE_UDP_MIGRATION /* a UDP service's flows leave a backend that takes no new ones */
#define HAVE_UDP_MIGRATION 1
#endif
#ifndef HAVE_SPOOF /* sources that can be no client's are dropped */
#define HAVE_SPOOF 1
#endif
#ifndef HAVE_ECHO /* echo requests for VIPs are answered */
#define HAVE_ECHO 1
#endif
#ifndef HAVE_TOO_BIG /* clients are told of packets that the outer header makes too big */
#define HAVE_TOO_BIG 1
#endif
#ifndef HAVE_GUE /* a service forwards by GUE */
#define HAVE_GUE 1
#endif
#ifndef HAVE_L2 /* a service forwards by MAC rewrite */
#define HAVE_L2 1
#endif
#ifndef HAVE_IPIP /* a service forwards by IP-in-IP */
#define HAVE_IPIP 1
#endif
#ifndef HAVE_NAT /* a service is of mode nat */
#define HAVE_NAT 1
#endif
#ifndef HAVE_NAT_KEEP /* and a backend sees its clients' addresses */
#define HAVE_NAT_KEEP 1
#endif
#ifndef HAVE_NAT_CROSS /* and a backend is of the other family */
#define HAVE_NAT_CROSS 1
#endif
#ifndef HAVE_NAT_ICMP /* and a service takes echo requests */
#define HAVE_NAT_ICMP 1
#endif
#ifndef HAVE_REDIRECT /* a next hop may be behind another interface */
#define HAVE_REDIRECT 1
#endif
#ifndef HAVE_FRAGS /* frames may lie in several buffers (large MTU, LRO) */
#define HAVE_FRAGS 0
#endif

#ifndef TRACE /* 1: the build that explain runs, see trace.h */
#define TRACE 0
#endif

/* The interface this build is for: its MAC as two host-order halves of the bytes in memory, and its index. */
#define OUR_MAC_FIRST4 LATE(01, 0)
#define OUR_MAC_LAST2 LATE(02, 0)
#define OUR_IFINDEX LATE(03, 0)

/* The flow table's secret: without it nobody can aim flows at one bucket. */
#define FLOW_KEY0 LATE(04, 0)
#define FLOW_KEY1 LATE(05, 0)

/* Outer sources: host-order prefix for IPv4, the first 96 bits for IPv6 as they lie in memory. */
#define ENCAP_SOURCE4 LATE(06, 0xac100000)
#define ENCAP_SOURCE4_HOSTS LATE(07, 0xffff)
#define ENCAP_SOURCE6_0 LATE(08, 1)
#define ENCAP_SOURCE6_1 LATE(09, 0)
#define ENCAP_SOURCE6_2 LATE(10, 0)
#define GUE_PORT LATE(11, 6080)

#define TOO_BIG_PER_SECOND LATE(12, 1000) /* ICMP answers in one second, at most */

/* The two clocks. A build whose time stands still has numbers here. */
#ifndef JIFFIES
#define JIFFIES bpf_jiffies64()
#endif
#ifndef CLOCK_NS
#define CLOCK_NS bpf_ktime_get_ns()
#endif

#ifndef JIFFY_SHARE /* of a second, in 2^-32: 2^32 / HZ of the running kernel */
#define JIFFY_SHARE 17179869
#endif

#define UDP_IDLE_S LATE(13, 30)
#define TCP_IDLE_S LATE(14, 3600)

/* How long a NAT flow lives without a packet, by state. */
#define NAT_OPENING_S LATE(15, 30)
#define NAT_CLOSING_S LATE(16, 60)
#define NAT_TCP_IDLE_S LATE(17, 7440)
#define NAT_UDP_IDLE_S LATE(18, 120)
#define NAT_ICMP_IDLE_S LATE(20, 60)

#define STAGE_SLOT LATE(19, 0) /* where in `stages` this build's second program stands */

#ifndef OUR_MTU /* of the interface */
#define OUR_MTU 1500
#endif

/* Capacities, from lb/settings.py. */
#ifndef MAX_SERVICES
#define MAX_SERVICES 4096
#define MAX_SERVICE_PORTS 65536
#define SERVICE_BUCKETS 32768
#define MAX_BACKENDS 65536
#define MAX_RINGS 512
#define FLOW_BUCKETS 262144
#define MAX_DENY_HOSTS 1572864
#define MAX_DENY_DENSE 4096
#define MAX_DENY6 1048576
#define MAX_ALLOW 65536
#define LIMIT_BUCKETS 65536
#define SYN_TEST_LINES 65536
#define NAT_SLOTS 262144
#define NAT_BUCKETS 65536
#endif

/* Checks of backends: a packet's mark says its mode and the backend's place. Their source ports are above those that Linux
 * gives out by itself; lb/health/dial.py has the same numbers. */
#define PROBE_MARK 0x5c000000
#define PROBE_MARK_MASK 0xfc000000
#define PROBE_MODE_SHIFT 24
#define PROBE_MODE_MASK 3
#define PROBE_L2 1
#define PROBE_GUE 2 /* neither: ipip */
#define PROBE_PLACE_MASK 0x00ffffff
#define PROBE_PORT_FIRST 61000
#define PROBE_PORT_LAST 64999

#define VLAN_TAGS_MAX 2
#define IPV6_EXTENSIONS_MAX 6
#define RING_SLOTS 65537 /* a prime: the Maglev paper's M, over 16 slots for each of 4096 backends */
#define FLOW_WAYS 4
#define SYN_RETRY_S 8 /* a SYN that comes again within so long, with nothing between, was not answered: clients wait 1, 2 and 4 s */
#define FLOW_PROTECT_S 60 /* an established flow seen so recently is never evicted */
#define FLOW_CLOSED_S 5 /* a closed flow that was seen so recently is not over: the backend may still have to answer */
#define NAT_PROBES 32 /* ports that a new flow looks at */
#define NAT_OVERDUE_S 30 /* over for so long: whoever frees entries is not there */
#define STAGES_MAX 4096
#define OUTER_TTL 64
#define ENTRY_NUMBERS 32768
#define ENTRY_COUNT_ONLY 16384 /* blocklist numbers from here on count and let pass */
#define ALLOW_NUMBERS 4096
#define NONE 0x7fffffff /* no place, no service; positive, since an instruction holds 31 bits of it */
