/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Receiving GRE: is it ours, is it whole, which tunnel is it?
 *
 * While that is unsure the kernel gets it; once it is ours, a bad one is dropped with a reason.
 */
#pragma once

#include "ecn.h"
#include "sequence.h"
#include "sources.h"

/* GRE to a local of ours that no tunnel takes: one counter, no more work. Floods end here. */
static __always_inline int refuse_unmatched(__be32 local, __be32 remote)
{
	__u32 first = 0;
	struct settings *settings;
	int is_pair = lookup_endpoint4(local, remote, 0, ENDPOINT_PAIR) != 0;

	if (!is_pair && !is_local4(local))
		return pass_unrelated();
	settings = map_lookup(MAP_SETTINGS, &first);
	if (settings && settings->unknown_gre_pass)
		return pass(is_pair ? PASS_KEY_MISMATCH : PASS_UNKNOWN_TUNNEL);
	return drop(is_pair ? DROP_KEY_MISMATCH : DROP_UNKNOWN_TUNNEL);
}

/* From a known remote a broken packet has its reason; from a stranger it is just a stranger's. */
static __always_inline int refuse_broken(__be32 local, __be32 remote, __u32 reason)
{
	if (lookup_endpoint4(local, remote, 0, ENDPOINT_PAIR))
		return drop(reason);
	return refuse_unmatched(local, remote);
}

/* RFC 2784 section 2.3.1: only version 0 is ours; version 1 is PPTP's (RFC 2637). */
static __always_inline int refuse_version(__be32 local, __be32 remote, __be16 flags)
{
	if ((flags & GRE_VERSION_MASK) != GRE_VERSION_PPTP)
		return refuse_broken(local, remote, DROP_GRE_VERSION);
	return is_local4(local) ? pass(PASS_GRE_VERSION) : pass_unrelated();
}

/* Inner packets that nobody honest sends through this tunnel. */
static __always_inline int refuse_inner(struct packet *packet, __be32 local)
{
	if (is_ipv4(packet)) {
		if (is_martian_source4(ip4(packet)->saddr) || !is_allowed_source(packet))
			return drop(DROP_INNER_SOURCE);
		if (ip4(packet)->daddr == local)
			return drop(DROP_LOOPED_BACK);
		if (ip4(packet)->protocol == IPPROTO_GRE && is_local4(ip4(packet)->daddr))
			return drop(DROP_NESTED_TUNNEL);
	} else if (is_martian_source6(ip6(packet)) || !is_allowed_source(packet)) {
		return drop(DROP_INNER_SOURCE);
	}
	return NEXT_STAGE;
}

/* RFC 2890 section 2.2: old and repeated numbers are discarded, gaps are not. */
static __always_inline int refuse_sequence(struct packet *packet, __be16 flags, __be32 number)
{
	if (!(packet->from->flags & TUNNEL_ISEQ))
		return NEXT_STAGE;
	if (!(flags & GRE_SEQUENCE_BIT))
		return drop(DROP_GRE_SEQUENCE_MISSING);
	if (!accept_sequence(packet->from_id, number))
		return drop(DROP_GRE_SEQUENCE);
	return NEXT_STAGE;
}

/* `cursor` stands behind the outer header `ip`. On NEXT_STAGE the packet is the inner one. */
static __always_inline int decap4(struct packet *packet, struct cursor *cursor,
                                  const struct iphdr *ip)
{
	__be32 local = ip->daddr, remote = ip->saddr;
	__u8 outer_tos = ip->tos;
	__u32 payload = bpf_ntohs(ip->tot_len) - ip_header_bytes(ip);
	__u32 start = cursor_offset(cursor);
	struct gre_base *gre;
	struct gre_words words = {};
	__u32 header, *id;
	int verdict;

	/* A delivery fragment holds no whole GRE packet, and reassembly is not XDP's to do. */
	if (is_fragment4(ip))
		return refuse_broken(local, remote, DROP_OUTER_FRAGMENT);
	gre = parse_gre_base(cursor);
	if (!gre || payload < sizeof(*gre))
		return refuse_broken(local, remote, DROP_GRE_TRUNCATED);
	if (gre->flags & GRE_VERSION_MASK)
		return refuse_version(local, remote, gre->flags);
	/* RFC 2784 section 2.3: before anything that this bit might have moved is read. */
	if (gre->flags & GRE_ROUTING_BIT)
		return refuse_broken(local, remote, DROP_GRE_ROUTING_BIT);
	if (!parse_gre_words(cursor, gre->flags, &words))
		return refuse_broken(local, remote, DROP_GRE_TRUNCATED);
	header = cursor_offset(cursor) - start;
	if (header > payload)
		return refuse_broken(local, remote, DROP_GRE_TRUNCATED);

	id = lookup_endpoint4(local, remote, words.key,
	                      gre->flags & GRE_KEY_BIT ? ENDPOINT_KEYED : ENDPOINT_KEYLESS);
	if (!id)
		return refuse_unmatched(local, remote);
	packet->from_id = *id;
	packet->from = lookup_tunnel(packet->from_id);
	if (!packet->from || !packet->from->inner_ifindex)
		return drop(DROP_NO_TUNNEL);

	if (gre->flags & GRE_RESERVED_BITS)
		return drop(DROP_GRE_RESERVED_BITS);
	if (gre->flags & GRE_CHECKSUM_BIT) {
		if (sum_frame(packet->ctx, start, payload) != 0xffff)
			return drop(DROP_GRE_CHECKSUM);
	} else if (packet->from->flags & TUNNEL_ICSUM) {
		return drop(DROP_GRE_CHECKSUM_MISSING);
	}
	if (gre->protocol != bpf_htons(ETH_P_IP) && gre->protocol != bpf_htons(ETH_P_IPV6))
		return drop(DROP_UNKNOWN_PROTOCOL);
	if (!parse_routed(packet, cursor, gre->protocol, payload - header))
		return drop(DROP_INNER_MALFORMED);
	verdict = refuse_inner(packet, local);
	if (verdict != NEXT_STAGE)
		return verdict;
	if (!propagate_ecn(packet, outer_tos))
		return drop(DROP_ECN_CE_NOT_ECT);
	/* Last: a packet that is dropped for another reason must not use up its number. */
	return refuse_sequence(packet, gre->flags, words.sequence);
}
