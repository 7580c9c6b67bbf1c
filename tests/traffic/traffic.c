/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* A source that numbers the frames it sends, and a sink that counts each number; for tests only. */
#include <uapi/linux/bpf.h>

/* BPF_PSEUDO_MAP_IDX: the loader says which maps these are (MapIndex in flow.py). */
#define MAP_BY_INDEX 5
#define map_lookup(index, key) \
	bpf_map_lookup_elem_((uintptr_t)bpf_pseudo_fd(MAP_BY_INDEX, index), key)

enum map_index {
	MAP_SOURCE,
	MAP_SINK,
	MAP_ARRIVALS,
};

#define FRAME_BYTES 64
#define MAGIC_AT    42 /* behind Ethernet, IPv4 and UDP */
#define MAGIC       0x67726578
#define NUMBER_AT   48
#define PAGE_BYTES  4096

/* MAP_SOURCE: one entry. */
struct source {
	__u64 sent;
	__u8 frame[FRAME_BYTES]; /* without its number */
};

/* MAP_SINK: one entry. */
struct sink {
	__u64 next; /* the highest number that has arrived, and one more */
	__u64 late; /* arrived after a higher number */
};

/* MAP_ARRIVALS: pages of one octet a number: how often it has arrived. */

/* Run in live mode, where a frame comes as the last receiver left it: all of it is written. */
int traffic_source(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 first = 0;
	struct source *source = map_lookup(MAP_SOURCE, &first);

	if (!source || data + FRAME_BYTES > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, source->frame, FRAME_BYTES);
	*(__u64 *)(data + NUMBER_AT) = __sync_fetch_and_add(&source->sent, 1);
	return XDP_TX;
}

int traffic_sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 first = 0, page;
	struct sink *sink;
	__u8 *arrivals;
	__u64 number;

	if (data + FRAME_BYTES > end || *(__u32 *)(data + MAGIC_AT) != MAGIC)
		return XDP_PASS;
	number = *(__u64 *)(data + NUMBER_AT);
	page = number / PAGE_BYTES;
	arrivals = map_lookup(MAP_ARRIVALS, &page);
	sink = map_lookup(MAP_SINK, &first);
	if (!arrivals || !sink)
		return XDP_ABORTED;
	arrivals += number % PAGE_BYTES;
	if (*arrivals < 255)
		++*arrivals;
	if (number >= sink->next)
		sink->next = number + 1;
	else
		__sync_fetch_and_add(&sink->late, 1);
	return XDP_DROP;
}
