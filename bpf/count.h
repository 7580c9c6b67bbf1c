/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Counting, at the decision and together with the verdict it explains: one outcome a frame. */
#pragma once

#include "maps.h"
#include "reasons.h"

static __always_inline void count_outcome(__u32 code)
{
	__u64 *counter = map_lookup(MAP_REASON_COUNTERS, &code);

	if (counter)
		*counter += 1;
}

/* On the fast path. */
static __always_inline int redirect(__u32 code)
{
	count_outcome(code);
	return XDP_REDIRECT;
}

static __always_inline int drop(__u32 code)
{
	count_outcome(code);
	return XDP_DROP;
}

static __always_inline int pass(__u32 code)
{
	count_outcome(code);
	return XDP_PASS;
}

/* Not ours, or not surely ours. */
static __always_inline int pass_unrelated(void)
{
	return pass(REASON_NONE);
}

static __always_inline void count_received(const struct tunnel *tunnel, __u32 bytes)
{
	__u32 id = tunnel->id;
	struct tunnel_counters *counters = map_lookup(MAP_TUNNEL_COUNTERS, &id);

	if (counters) {
		counters->rx_packets += 1;
		counters->rx_bytes += bytes;
	}
}

static __always_inline void count_transmitted(const struct tunnel *tunnel, __u32 bytes)
{
	__u32 id = tunnel->id;
	struct tunnel_counters *counters = map_lookup(MAP_TUNNEL_COUNTERS, &id);

	if (counters) {
		counters->tx_packets += 1;
		counters->tx_bytes += bytes;
	}
}
