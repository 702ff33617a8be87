/* Every map. Each is pinned by its name when it is first needed, so that a new program works on the same memory as the old
 * one; lb/dataplane/tables.py has the numbers of entries.
 */
#define MAP(kind, key, value, name, flags) BPF_F_TABLE(kind, key, value, name, 1, flags)
#define MEMORY BPF_F_MMAPABLE
#define SPARSE BPF_F_NO_PREALLOC /* takes memory as entries come: the kernel makes no other tries */

/* Services: VIP, port, protocol → service, in memory that Python writes; and, as hashes, what found no room in its bucket. */
MAP("array", u32, struct service4_bucket, services4, MEMORY);
MAP("array", u32, struct service6_bucket, services6, MEMORY);
MAP("hash", struct service4_key, struct service, services4_more, 0);
MAP("hash", struct service6_key, struct service, services6_more, 0);
MAP("array", u32, struct vip_bits, vip_bits, MEMORY);
MAP("lpm_trie", struct prefix6_key, struct vip_prefix, vip_prefixes6, SPARSE);
MAP("hash", struct quic_key, u32, quic_ids, 0);

/* Memory that Python maps and writes as numpy arrays, without a system call per entry. */
MAP("array", u32, struct service_ring, service_rings, MEMORY);
MAP("array", u32, struct cells, rings, MEMORY);
MAP("array", u32, struct backend, backends, MEMORY);
MAP("array", u32, struct flow_bucket, flows, MEMORY);
MAP("array", u32, struct cells, deny4_cells, MEMORY);
MAP("array", u32, struct deny_runs, deny4_runs, MEMORY);
MAP("array", u32, struct deny_line, deny4_lines, MEMORY);
MAP("array", u32, struct deny_dense, deny4_dense, MEMORY);
MAP("array", u32, struct deny6_cells, deny6_filter, MEMORY);
MAP("array", u32, struct budget, too_big_budget, MEMORY);

/* Longest-prefix tries: prefix → entry number; and the blocklist's /128s and /64s, which take memory as they come. */
MAP("hash", struct prefix6_key, u32, deny6_hosts, SPARSE);
MAP("lpm_trie", struct prefix6_key, u32, deny6_trie, SPARSE);
MAP("lpm_trie", struct prefix4_key, u32, allow4, SPARSE);
MAP("lpm_trie", struct prefix6_key, u32, allow6, SPARSE);

/* Rules, see struct rule_set; both banks of each. */
MAP("array", u32, struct rule_bank, rule_bank, MEMORY);
MAP("array", u32, struct cells, rule_cells, MEMORY);
MAP("array", u32, struct rule_set, rule_sets, MEMORY);
MAP("array", u32, struct rule_action, rule_actions, MEMORY);
MAP("lpm_trie", struct prefix4_key, struct rule_classes, rule_sources4, SPARSE);
MAP("lpm_trie", struct prefix6_key, struct rule_classes, rule_sources6, SPARSE);
MAP("lpm_trie", struct prefix4_key, struct rule_classes, rule_targets4, SPARSE);
MAP("lpm_trie", struct prefix6_key, struct rule_classes, rule_targets6, SPARSE);

/* Limits and guards. */
MAP("array", u32, struct limit_total, limit_totals, MEMORY);
MAP("array", u32, struct limit_bucket, limit_buckets, MEMORY);
MAP("array", u32, struct limit_cell, limit_sketch, MEMORY);
MAP("array", u32, struct service_guard, service_guards, MEMORY);
MAP("array", u32, struct cell_line, known_sources, MEMORY);
MAP("array", u32, struct cell_line, syn_tests, MEMORY);

/* NAT: entries by slot, who finds them, and what newcomers are given. */
MAP("array", u32, struct nat_forward, nat_forward, MEMORY);
MAP("array", u32, struct nat_reply, nat_reply, MEMORY);
MAP("array", u32, struct nat_bucket, nat_index, MEMORY);
MAP("array", u32, struct nat_pool, nat_pools, MEMORY);
MAP("array", u32, struct nat_line, nat_addresses, MEMORY);
MAP("array", u32, struct nat_list, nat_lists, MEMORY);
MAP("array", u32, struct nat_interface, nat_interfaces, MEMORY);
MAP("array", u32, struct nat_cursor, nat_cursors, MEMORY);

/* Second programs, each build's in a slot of its own. Programs for several buffers and for one cannot share such a map. */
MAP("prog", u32, u32, stages, 0);
MAP("prog", u32, u32, stages_frags, 0);
MAP("hash", u32, u32, stage_builds, 0); /* digits of a build's digest: its slot in those */

/* What somebody looks at: a bounded queue to the control plane. */
MAP("array", u32, struct sampling, watching, MEMORY);
BPF_RINGBUF_OUTPUT(samples, 1);

/* Counters, one copy a CPU: no line is shared, no add is atomic. */
MAP("percpu_array", u32, struct tally, verdict_counters, 0);
MAP("percpu_array", u32, struct tally, backend_counters, 0);
MAP("percpu_array", u32, struct passive_tally, passive_counters, 0);
MAP("percpu_array", u32, struct tally, service_counters, 0);
MAP("percpu_array", u32, struct entry_tally, deny_counters, 0);
MAP("percpu_array", u32, struct entry_tally, allow_counters, 0);
MAP("percpu_array", u32, struct rule_tally, rule_counters, 0);
MAP("percpu_array", u32, struct guard_tally, guard_counters, 0);
MAP("percpu_array", u32, struct flow_tally, flow_counters, 0);
MAP("percpu_array", u32, struct nat_tally, nat_counters, 0);
MAP("percpu_array", u32, struct quic_tally, quic_counters, 0);

/* The control plane's notes; the packet path does not read them. */
MAP("array", u32, struct entry_owner, deny_owners, MEMORY);
MAP("array", u32, struct entry_owner, allow_owners, MEMORY);
MAP("array", u32, struct service_owner, service_owners, MEMORY);
MAP("array", u32, struct entry_owner, rule_owners, MEMORY);
