/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Which neighbours frames were sent to: the kernel does not see them, so the agent has it ask them
 * whether they are still where they were.
 */
#pragma once

#include "fib.h"

#define NOTE_EVERY_NS 1000000000ULL

/* Noted once a second and neighbour, or less where two share a bucket: a map update each time would
 * cost more than all the rest.
 */
static __always_inline void note_neighbour(const struct bpf_fib_lookup *fib)
{
	struct next_hop hop = found_next_hop(fib);
	__u32 bucket = mix(hop.address.word[3] ^ hop.ifindex) & (NOTE_BUCKETS - 1);
	__u64 now = bpf_ktime_get_coarse_ns();
	__u64 *until = map_lookup(MAP_NOTES, &bucket);

	if (!until || now < *until)
		return;
	*until = now + NOTE_EVERY_NS;
	map_put(MAP_NEIGHBOURS, &hop, &now);
}
