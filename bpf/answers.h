/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* How often a sender hears that its packets are too big. The kernel would answer every one: it has
 * no limit for the errors that path MTU discovery needs (icmpv4_mask_allow in net/ipv4/icmp.c), and
 * RFC 4443 section 2.4 (f) wants one.
 */
#pragma once

#include "packet.h"

/* Per bucket, and so at most that times ANSWER_BUCKETS a second on each CPU. */
#define ANSWERS_PER_S   10
#define ANSWERS_AT_ONCE 64
#define ANSWER_EVERY_NS (1000000000ULL / ANSWERS_PER_S)

/* Only these are answered; the kernel fragments other packets, as many as there are. */
static __always_inline int is_answered(const struct packet *packet)
{
	return is_ipv6(packet) || (is_ipv4(packet) && ip4(packet)->frag_off & IP_DONT_FRAGMENT);
}

/* May the sender be told once more? A bucket holds the time at which all answers would be paid for
 * (the virtual scheduling of ITU-T I.371); one of many is chosen by the source, so that a flood
 * does not silence what others need to hear.
 */
static __always_inline int may_answer(const struct packet *packet)
{
	struct ip_address source = packet_source(packet);
	__u32 hash = source.word[0] ^ source.word[1] ^ source.word[2] ^ source.word[3];
	__u32 bucket = mix(hash) & (ANSWER_BUCKETS - 1);
	__u64 now = bpf_ktime_get_ns();
	__u64 *paid_at = map_lookup(MAP_ANSWERS, &bucket);

	if (!paid_at)
		return 1;
	if (*paid_at < now)
		*paid_at = now;
	if (*paid_at - now > (ANSWERS_AT_ONCE - 1) * ANSWER_EVERY_NS)
		return 0;
	*paid_at += ANSWER_EVERY_NS;
	return 1;
}
