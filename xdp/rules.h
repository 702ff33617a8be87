/* What rules do, in order: allow, drop, count; and the limits that a packet matched, once no rule has dropped it. */

static __always_inline bool opens_tcp(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline void count_dropped(struct rule_tally *tally, const struct packet *p)
{
	if (TRACE || !tally)
		return;
	tally->dropped_packets++;
	tally->dropped_bytes += p->frame_length;
}

static __always_inline struct rule_tally *tally_of(const struct rule_action *action)
{
	u32 key = action->number;

	return rule_counters.lookup(&key);
}

/* What is over a limit, or met a rule that drops: the verdict, or CONTINUE in count-only mode. */
static __always_inline int drop_by(struct packet *p, const struct rule_action *action, struct rule_tally *tally)
{
	count_dropped(tally, p);
	if (action->flags & RULE_COUNT_ONLY)
		return CONTINUE;
	if (HAVE_BANS && action->flags & RULE_BANS)
		report_ban(p, action->number);
	if (HAVE_SAMPLES || HAVE_BANS)
		p->rule = action->number;
	if (TRACE)
		p->trace->rule = action->number;
	return action->action == RULE_DROP ? DROP_RULE : DROP_LIMIT;
}

/* The limits that a packet met, sixteen bits each: 1 + their index in rule_actions. The loop that finds rules only notes
 * them: inside it, the verifier would walk what a limit does once for every rule. UDP's new flows are known in select only. */
static __always_inline int ask_limits(struct packet *p, u64 met)
{
	u64 unknown = unknown_word(p);
	u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < LIMITS_MET; i++) {
		u32 key = met & 0xffff;
		struct rule_action *action;
		u32 units = 1;
		int verdict;

		if (!key--)
			break;
		met = forget_all(met >> 16, unknown);
		action = rule_actions.lookup(&key);
		if (!action)
			return DROP_INTERNAL;
		if (HAVE_LIMIT_FLOWS && action->unit == LIMIT_FLOWS && !opens_tcp(p)) {
			if (p->protocol == IPPROTO_UDP && p->has_ports && !(p->flow_limits >> 16 * (FLOW_LIMITS_MET - 1)))
				p->flow_limits = forget_all(p->flow_limits << 16 | (key + 1), unknown);
			continue;
		}
		if (action->unit == LIMIT_BYTES)
			units = p->frame_length;
		units = forget(units, unknown, ~0U);
		if (!is_over(p, action, units))
			continue;
		verdict = drop_by(p, action, tally_of(action));
		if (verdict)
			return verdict;
	}
	return CONTINUE;
}

/* The rules, in their order. blocked: the blocklist drops the packet, unless the first rule that matches allows it. */
static __always_inline int ask_rules(struct packet *p, bool blocked)
{
	struct rule_rows rows;
	u64 bits = 0, unknown = unknown_word(p), met = forget_all(0, unknown);
	u32 word = 0, i;

	if (HAVE_RULE_ALLOW)
		blocked = forget(blocked, unknown, 1);
	if (!find_rows(p, &rows))
		return DROP_INTERNAL;
	if (HAVE_ALLOW && !blocked && rows.some && is_allowed(p))
		return CONTINUE;
#pragma clang loop unroll(disable)
	for (i = 0; i < RULE_STEPS; i++) {
		struct rule_action *action;
		struct rule_tally *tally;
		u32 key;
		int verdict;

		if (!bits) {
			if (!rows.some)
				break;
			/* Forgotten, so that one turn of the loop looks to the verifier like the other. */
			word = forget(lowest_bit(rows.some), unknown, RULE_WORDS - 1);
			rows.some = forget_all(rows.some & (rows.some - 1), unknown);
			bits = forget_all(common_rules(&rows, word), unknown);
			continue;
		}
		key = rows.bank * RULES_MAX + (word << 6 | lowest_bit(bits));
		bits = forget_all(bits & (bits - 1), unknown);
		action = rule_actions.lookup(&key);
		if (!action)
			return DROP_INTERNAL;
		if (blocked && action->action != RULE_ALLOW)
			break;
		tally = tally_of(action);
		if (tally && !TRACE) {
			tally->packets++;
			tally->bytes += p->frame_length;
			tally->last_s = coarse_seconds();
		}
		if (HAVE_RULE_ALLOW && action->action == RULE_ALLOW) {
			if (TRACE)
				p->trace->rule = action->number;
			return CONTINUE;
		}
		if (HAVE_LIMIT && action->action == RULE_LIMIT && !(met >> 16 * (LIMITS_MET - 1)))
			met = forget_all(met << 16 | (key + 1), unknown);
		if (action->action != RULE_DROP)
			continue;
		verdict = drop_by(p, action, tally);
		if (verdict)
			return verdict;
	}
	if (blocked)
		return DROP_BLOCKLIST;
	return HAVE_LIMIT ? ask_limits(p, met) : CONTINUE;
}

/* A UDP packet opens a flow: the limits of new flows that it met. */
static __always_inline int ask_flow_limits(struct packet *p)
{
	u64 unknown = unknown_word(p);
	u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < FLOW_LIMITS_MET; i++) {
		u32 key = p->flow_limits & 0xffff;
		struct rule_action *action;
		int verdict;

		if (!key)
			break;
		p->flow_limits = forget_all(p->flow_limits >> 16, unknown);
		key--;
		action = rule_actions.lookup(&key);
		if (!action)
			break;
		if (!is_over(p, action, 1))
			continue;
		verdict = drop_by(p, action, tally_of(action));
		if (verdict)
			return verdict;
	}
	return CONTINUE;
}
