/* QUIC connection IDs (RFC 9000, RFC 8999): the number that a backend's server wrote into them.
 *
 * The client's first packets carry an id of its own choice; all later ones the server's, wherever they come from.
 */
#define QUIC_LONG_HEADER 0x80
#define QUIC_VERSION_2 0x6b3343cfU /* RFC 9369: the types are others */
#define QUIC_NO_ID 0

struct quic_long_header {
	u8 first;
	u8 version[4];
	u8 id_length;
};

/* Whether the id in a long header is the client's: Initial and 0-RTT, and what is no packet of a client's at all. */
static __always_inline bool is_client_id(const struct quic_long_header *header)
{
	u32 version = (u32)header->version[0] << 24 | header->version[1] << 16 | header->version[2] << 8 | header->version[3];
	u32 type = header->first >> 4 & 3, initial = version == QUIC_VERSION_2;

	return !version || type == initial || type == initial + 1;
}

/* The number in an id at an offset, of which so many bytes are there. Two bits say how it is written. */
static __always_inline u32 quic_number(const struct packet *p, u32 at, u32 length)
{
	const u8 *id = p->data + at;

	if (length < 3 || (const void *)(id + 3) > p->end)
		return QUIC_NO_ID;
	if (id[0] >> 6 == 1)
		return (u32)(id[0] & 0x3f) << 10 | id[1] << 2 | id[2] >> 6;
	if (length < 4 || (const void *)(id + 4) > p->end)
		return QUIC_NO_ID;
	if (id[0] >> 6 == 2)
		return (u32)id[1] << 16 | id[2] << 8 | id[3];
	if (length < 5 || (const void *)(id + 5) > p->end || id[0] >> 6 == 0)
		return QUIC_NO_ID;
	return (u32)id[1] << 24 | id[2] << 16 | id[3] << 8 | id[4];
}

static __always_inline u32 quic_id(const struct packet *p)
{
	u32 at = (p->l4 & L4_MOST) + sizeof(struct udphdr), end = p->l3 + p->l3_length, length;
	const struct quic_long_header *header = p->data + at;

	if (at >= end || (const void *)&header->version > p->end)
		return QUIC_NO_ID;
	if (!(header->first & QUIC_LONG_HEADER))
		return quic_number(p, at + 1, end - at - 1);
	if (at + sizeof(*header) > end || (const void *)(header + 1) > p->end || is_client_id(header))
		return QUIC_NO_ID;
	length = header->id_length;
	at += sizeof(*header);
	return at + length > end ? QUIC_NO_ID : quic_number(p, at, length);
}

static __always_inline void count_quic(bool by_id, bool has_id)
{
	u32 key = 0;
	struct quic_tally *tally = quic_counters.lookup(&key);

	if (!tally || TRACE)
		return;
	if (by_id)
		tally->by_id++;
	else if (has_id)
		tally->unknown++;
	else
		tally->without++;
}

/* The place, within the service, of the backend that a packet's connection id names; NONE if it names none. */
static __always_inline u32 ask_quic_id(const struct packet *p, const struct service *service)
{
	struct quic_key key = { .id = quic_id(p), .service = service->number };
	struct backend *backend = NULL;
	u32 *found = NULL, offset = 0, place;

	if (TRACE)
		p->trace->quic_id = key.id;
	if (key.id != QUIC_NO_ID)
		found = quic_ids.lookup(&key);
	if (found) {
		offset = *(volatile u32 *)found; /* once: the entry may be used anew meanwhile */
		place = service->backends + offset;
		backend = backends.lookup(&place);
	}
	if (!backend || !(backend->state & BACKEND_ACTIVE)) {
		count_quic(false, key.id != QUIC_NO_ID);
		return NONE;
	}
	count_quic(true, true);
	return offset;
}
