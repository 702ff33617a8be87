/* Every map, pinned by name in PIN_DIR, so that a new program works on the same memory as the old one. */
#define PINNED(name) PIN_DIR "/" name
#define TRIE BPF_F_NO_PREALLOC /* the kernel makes no other tries */

/* Services: VIP, port, protocol → service, in memory that Python writes; and, as hashes, what found no room in its bucket. */
BPF_TABLE_PINNED("array", u32, struct service4_bucket, services4, SERVICE_BUCKETS, PINNED("services4"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct service6_bucket, services6, SERVICE_BUCKETS, PINNED("services6"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("hash", struct service4_key, struct service, services4_more, MAX_SERVICE_PORTS, PINNED("services4_more"));
BPF_TABLE_PINNED("hash", struct service6_key, struct service, services6_more, MAX_SERVICE_PORTS, PINNED("services6_more"));
BPF_TABLE_PINNED("array", u32, struct vip_bits, vip_bits, 2, PINNED("vip_bits"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("lpm_trie", struct prefix6_key, struct vip_prefix, vip_prefixes6, MAX_SERVICES, PINNED("vip_prefixes6"), TRIE);
BPF_TABLE_PINNED("hash", struct quic_key, u32, quic_ids, MAX_BACKENDS, PINNED("quic_ids"));

/* Memory that Python maps and writes as numpy arrays, without a system call per entry. */
BPF_TABLE_PINNED("array", u32, struct service_ring, service_rings, MAX_SERVICES, PINNED("service_rings"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct cells, rings, MAX_RINGS * RING_CELLS, PINNED("rings"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct backend, backends, MAX_BACKENDS, PINNED("backends"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct flow_bucket, flows, FLOW_BUCKETS, PINNED("flows"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct cells, deny4_cells, (1 << 24 >> CELLS_SHIFT), PINNED("deny4_cells"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct deny_runs, deny4_runs, 256, PINNED("deny4_runs"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct deny_line, deny4_lines, MAX_DENY_HOSTS, PINNED("deny4_lines"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct deny_dense, deny4_dense, MAX_DENY_DENSE, PINNED("deny4_dense"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct deny6_cells, deny6_filter, DENY6_VALUES, PINNED("deny6_filter"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct budget, too_big_budget, 1, PINNED("too_big_budget"), BPF_F_MMAPABLE);

/* Longest-prefix tries: prefix → entry number; and the blocklist's /128s and /64s, which take memory as they come. */
BPF_TABLE_PINNED("hash", struct prefix6_key, u32, deny6_hosts, MAX_DENY6, PINNED("deny6_hosts"), BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED("lpm_trie", struct prefix6_key, u32, deny6_trie, MAX_DENY6, PINNED("deny6_trie"), TRIE);
BPF_TABLE_PINNED("lpm_trie", struct prefix4_key, u32, allow4, MAX_ALLOW, PINNED("allow4"), TRIE);
BPF_TABLE_PINNED("lpm_trie", struct prefix6_key, u32, allow6, MAX_ALLOW, PINNED("allow6"), TRIE);

/* Rules, see struct rule_set; both banks of each. */
BPF_TABLE_PINNED("array", u32, struct rule_bank, rule_bank, 1, PINNED("rule_bank"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct cells, rule_cells, 2 * RULE_CELLS_VALUES, PINNED("rule_cells"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct rule_set, rule_sets, 2 * RULE_FIELDS * RULE_CLASSES, PINNED("rule_sets"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct rule_action, rule_actions, 2 * RULES_MAX, PINNED("rule_actions"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("lpm_trie", struct prefix4_key, struct rule_classes, rule_sources4, 2 * RULES_MAX, PINNED("rule_sources4"), TRIE);
BPF_TABLE_PINNED("lpm_trie", struct prefix6_key, struct rule_classes, rule_sources6, 2 * RULES_MAX, PINNED("rule_sources6"), TRIE);
BPF_TABLE_PINNED("lpm_trie", struct prefix4_key, struct rule_classes, rule_targets4, 2 * RULES_MAX, PINNED("rule_targets4"), TRIE);
BPF_TABLE_PINNED("lpm_trie", struct prefix6_key, struct rule_classes, rule_targets6, 2 * RULES_MAX, PINNED("rule_targets6"), TRIE);

/* Limits and guards. */
BPF_TABLE_PINNED("array", u32, struct limit_total, limit_totals, RULES_MAX, PINNED("limit_totals"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct limit_bucket, limit_buckets, LIMIT_BUCKETS, PINNED("limit_buckets"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct limit_cell, limit_sketch, LIMIT_ROWS * LIMIT_CELLS, PINNED("limit_sketch"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct service_guard, service_guards, MAX_SERVICES, PINNED("service_guards"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct cell_line, known_sources, KNOWN_LINES, PINNED("known_sources"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct cell_line, syn_tests, SYN_TEST_LINES, PINNED("syn_tests"), BPF_F_MMAPABLE);

/* NAT: entries by slot, who finds them, and what newcomers are given. */
BPF_TABLE_PINNED("array", u32, struct nat_forward, nat_forward, NAT_SLOTS, PINNED("nat_forward"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct nat_reply, nat_reply, NAT_SLOTS, PINNED("nat_reply"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct nat_bucket, nat_index, NAT_BUCKETS, PINNED("nat_index"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct nat_pool, nat_pools, NAT_BLOCKS, PINNED("nat_pools"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct nat_line, nat_addresses, NAT_ADDRESS_LINES, PINNED("nat_addresses"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct nat_list, nat_lists, NAT_LISTS, PINNED("nat_lists"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct nat_interface, nat_interfaces, NAT_INTERFACES, PINNED("nat_interfaces"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct nat_cursor, nat_cursors, 1, PINNED("nat_cursors"), BPF_F_MMAPABLE);

/* Second programs, each build's in a slot of its own. Programs for several buffers and for one cannot share such a map. */
BPF_TABLE_PINNED("prog", u32, u32, stages, STAGES_MAX, PINNED("stages"));
BPF_TABLE_PINNED("prog", u32, u32, stages_frags, STAGES_MAX, PINNED("stages_frags"));

/* What somebody looks at: a bounded queue to the control plane. */
BPF_TABLE_PINNED("array", u32, struct sampling, watching, 2, PINNED("watching"), BPF_F_MMAPABLE);
struct samples_table_t { /* bcc has no macro for a pinned ring buffer */
	void *(*ringbuf_reserve)(u64);
	void (*ringbuf_submit)(void *, u64);
	u32 max_entries;
	int flags;
};
__attribute__((section("maps/ringbuf:" PINNED("samples")))) struct samples_table_t samples = { .max_entries = SAMPLE_QUEUE };

/* Counters, one copy a CPU: no line is shared, no add is atomic. */
BPF_TABLE_PINNED("percpu_array", u32, struct tally, verdict_counters, VERDICTS_MAX, PINNED("verdict_counters"));
BPF_TABLE_PINNED("percpu_array", u32, struct tally, backend_counters, MAX_BACKENDS, PINNED("backend_counters"));
BPF_TABLE_PINNED("percpu_array", u32, struct passive_tally, passive_counters, MAX_BACKENDS, PINNED("passive_counters"));
BPF_TABLE_PINNED("percpu_array", u32, struct tally, service_counters, MAX_SERVICES, PINNED("service_counters"));
BPF_TABLE_PINNED("percpu_array", u32, struct entry_tally, deny_counters, ENTRY_NUMBERS, PINNED("deny_counters"));
BPF_TABLE_PINNED("percpu_array", u32, struct entry_tally, allow_counters, ALLOW_NUMBERS, PINNED("allow_counters"));
BPF_TABLE_PINNED("percpu_array", u32, struct rule_tally, rule_counters, RULES_MAX, PINNED("rule_counters"));
BPF_TABLE_PINNED("percpu_array", u32, struct guard_tally, guard_counters, MAX_SERVICES, PINNED("guard_counters"));
BPF_TABLE_PINNED("percpu_array", u32, struct flow_tally, flow_counters, 1, PINNED("flow_counters"));
BPF_TABLE_PINNED("percpu_array", u32, struct nat_tally, nat_counters, 1, PINNED("nat_counters"));
BPF_TABLE_PINNED("percpu_array", u32, struct quic_tally, quic_counters, 1, PINNED("quic_counters"));

/* The control plane's notes; the packet path does not read them. */
BPF_TABLE_PINNED("array", u32, struct entry_owner, deny_owners, ENTRY_NUMBERS, PINNED("deny_owners"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct entry_owner, allow_owners, ALLOW_NUMBERS, PINNED("allow_owners"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct service_owner, service_owners, MAX_SERVICES, PINNED("service_owners"), BPF_F_MMAPABLE);
BPF_TABLE_PINNED("array", u32, struct entry_owner, rule_owners, RULES_MAX, PINNED("rule_owners"), BPF_F_MMAPABLE);
