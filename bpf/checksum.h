/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The Internet checksum (RFC 1071) and its incremental update (RFC 1624). */
#pragma once

#include <uapi/linux/ip.h>

#include "maps.h"

/* The longest GRE payload under a checksum: no link that XDP runs on carries more, and each step of
 * the loop has its price when the program is loaded.
 */
#define SUMMED_BYTES_MAX 16384

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

/* Copy `bytes` octets of the frame, 1 to SCRATCH_BLOCK_BYTES, and add them to a sum. */
static __always_inline __s64 sum_block(struct xdp_md *ctx, struct scratch *scratch, __u32 offset,
                                       __u64 bytes, __s64 sum)
{
	/* The verifier wants to see the bounds, and up to Linux 6.1 it does not learn the lower one
	 * from a comparison with 0. The compiler must not know better.
	 */
	asm volatile("" : "+r"(bytes));
	bytes = ((bytes - 1) & (SCRATCH_BLOCK_BYTES - 1)) + 1;
	/* The sum is of whole words: what follows the last octet counts as zero. */
	*(__u32 *)&scratch->block[(bytes - 1) & (SCRATCH_BLOCK_BYTES - 4)] = 0;
	if (bpf_xdp_load_bytes(ctx, offset, scratch->block, bytes))
		return -1;
	/* Before Linux 6.13 the sum has 32 bits, which BCC takes for an int. */
	return (__u32)bpf_csum_diff(0, 0, (void *)scratch->block, (bytes + 3) & ~3ULL, sum);
}

/* Sum a header of 1 to SCRATCH_BLOCK_BYTES octets at `offset` of the frame: 0xffff when they
 * include their own valid checksum, -1 when the frame ends before.
 */
static __always_inline int sum_header(struct xdp_md *ctx, __u32 offset, __u32 bytes)
{
	__u32 first = 0;
	struct scratch *scratch = map_lookup(MAP_SCRATCH, &first);
	__s64 sum;

	if (!scratch)
		return -1;
	sum = sum_block(ctx, scratch, offset, bytes, 0);
	return sum < 0 ? -1 : fold(sum);
}

/* The same for any number of octets.
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
	for (int i = 0; i < SUMMED_BYTES_MAX / SCRATCH_BLOCK_BYTES; i++) {
		__u64 block = scratch->bytes;

		if (!block)
			break;
		if (block > SCRATCH_BLOCK_BYTES)
			block = SCRATCH_BLOCK_BYTES;
		sum = sum_block(ctx, scratch, scratch->offset, block, sum);
		if (sum < 0)
			return -1;
		scratch->offset += block;
		scratch->bytes -= block;
	}
	return scratch->bytes ? -1 : fold(sum);
}
