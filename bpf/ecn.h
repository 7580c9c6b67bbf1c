/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Congestion marks across a tunnel (RFC 6040): what decap does to the inner header. */
#pragma once

#include "packet.h"

enum ecn {
	ECN_NOT_ECT = 0,
	ECN_ECT1 = 1,
	ECN_ECT0 = 2,
	ECN_CE = 3,
};

#define ECN_MASK 3

/* Traffic class (DSCP and ECN) of an IPv6 header: bits 4..11 of its first word. */
static __always_inline __u8 traffic_class(const struct ipv6hdr *ip6)
{
	return bpf_ntohs(*(const __be16 *)ip6) >> 4;
}

static __always_inline __u8 packet_tos(const struct packet *packet)
{
	if (is_ipv4(packet))
		return ip4(packet)->tos;
	return is_ipv6(packet) ? traffic_class(ip6(packet)) : 0;
}

static __always_inline void set_ecn(struct packet *packet, __u8 ecn)
{
	__be16 *first = packet->ip;
	__be16 before = *first;

	if (is_ipv4(packet)) {
		*first = (before & ~bpf_htons(ECN_MASK)) | bpf_htons(ecn);
		replace_checksummed(&ip4(packet)->check, before, *first);
	} else {
		*first = (before & ~bpf_htons(ECN_MASK << 4)) | bpf_htons(ecn << 4);
	}
}

/* RFC 6040 section 4.2, figure 4. What is not IP has no mark to carry on. Returns 0 when the packet
 * must be dropped: the inner sender cannot understand the congestion mark that the path has set.
 */
static __always_inline int propagate_ecn(struct packet *packet, __u8 outer)
{
	__u8 inner = packet_tos(packet) & ECN_MASK;

	outer &= ECN_MASK;
	if (!packet->version)
		return 1;
	if (outer == ECN_CE && inner == ECN_NOT_ECT)
		return 0;
	if (outer == ECN_CE && inner != ECN_CE)
		set_ecn(packet, ECN_CE);
	else if (outer == ECN_ECT1 && inner == ECN_ECT0)
		set_ecn(packet, ECN_ECT1);
	return 1;
}
