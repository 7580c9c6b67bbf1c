/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The Internet checksum (RFC 1071) and its incremental update (RFC 1624). */
#pragma once

#include <uapi/linux/ip.h>

#include "maps.h"

/* The largest frame a driver hands to XDP: a 9000-byte MTU, headers, and some to spare. */
#define FRAME_BYTES_MAX 10240

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* One's-complement sum of a header of `words` 32-bit words; the caller has checked its bounds. */
static __always_inline __u64 sum_words(const void *header, int words)
{
	const __u32 *word = header;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		sum += word[i];
	return sum;
}

/* Replace one 16-bit word under a checksum: HC' = ~(~HC + ~m + m') (RFC 1624 section 3). */
static __always_inline void replace_checksummed(__sum16 *checksum, __be16 from, __be16 to)
{
	__u32 sum = (__u16) ~*checksum + (__u16)~from + to;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*checksum = (__u16)~sum;
}

/* Sum `bytes` octets of the frame from `offset`: 0xffff when they include their own valid checksum,
 * -1 when the frame ends before.
 *
 * The progress lives in a map because the verifier forgets there what it knows: all exits of the
 * loop then look alike to it, and what follows is verified once instead of once for each length.
 */
static __always_inline int sum_frame(struct xdp_md *ctx, __u32 offset, __u32 bytes)
{
	__u32 first = 0;
	struct scratch *scratch = map_lookup(MAP_SCRATCH, &first);
	__s64 sum = 0;

	if (!scratch)
		return -1;
	scratch->offset = offset;
	scratch->bytes = bytes;
	for (int i = 0; i < FRAME_BYTES_MAX / SCRATCH_BLOCK_BYTES; i++) {
		__u64 block = scratch->bytes;

		if (!block)
			break;
		if (block > SCRATCH_BLOCK_BYTES)
			block = SCRATCH_BLOCK_BYTES;
		/* The compiler would bound a copy of the register; the verifier wants this one. */
		asm volatile("" : "+r"(block));
		block &= 2 * SCRATCH_BLOCK_BYTES - 1;
		if (block == 0 || block > SCRATCH_BLOCK_BYTES)
			return -1;
		/* The sum is of whole words: what follows the last octet counts as zero. */
		*(__u32 *)&scratch->block[(block - 1) & (SCRATCH_BLOCK_BYTES - 4)] = 0;
		if (bpf_xdp_load_bytes(ctx, scratch->offset, scratch->block, block))
			return -1;
		sum = bpf_csum_diff(0, 0, (void *)scratch->block, (block + 3) & ~3ULL, sum);
		scratch->offset += block;
		scratch->bytes -= block;
	}
	return scratch->bytes ? -1 : fold(sum);
}
