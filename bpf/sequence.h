/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Sequence numbers (RFC 2890 section 2.2): one count a tunnel, whatever CPUs its packets meet. */
#pragma once

#include "maps.h"

/* Several receive queues may have a newer number at once: one wins, the others look again. */
#define SEQUENCE_TRIES 4

static __always_inline struct sequences *lookup_sequences(__u32 tunnel)
{
	return map_lookup(MAP_SEQUENCES, &tunnel);
}

/* The number of the next packet sent; starts at 0 and wraps at 2^32. */
static __always_inline __be32 next_sequence(__u32 tunnel)
{
	struct sequences *sequences = lookup_sequences(tunnel);

	if (!sequences)
		return 0;
	return bpf_htonl((__u32)__sync_fetch_and_add(&sequences->sent, 1));
}

/* Accept a number that is newer than the last one (in a window of 2^31), however much newer. */
static __always_inline int accept_sequence(__u32 tunnel, __be32 number)
{
	struct sequences *sequences = lookup_sequences(tunnel);
	__u64 accepted = SEQUENCE_SEEN | bpf_ntohl(number);

	if (!sequences)
		return 0;
	for (int i = 0; i < SEQUENCE_TRIES; i++) {
		__u64 last = *(volatile __u64 *)&sequences->received;

		if (last && (__s32)((__u32)accepted - (__u32)last) <= 0)
			return 0;
		if (__sync_val_compare_and_swap(&sequences->received, last, accepted) == last)
			return 1;
	}
	/* Lost to newer numbers each time: this one is late. */
	return 0;
}
