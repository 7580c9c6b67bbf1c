/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Receiving GRE: is it ours, is it whole, which tunnel is it?
 *
 * While that is unsure the kernel gets it; once it is ours, a bad one is dropped with a reason.
 */
#pragma once

#include "ecn.h"
#include "sequence.h"
#include "sources.h"

/* What is needed of the outer IP header. */
struct outer {
	struct endpoint endpoint; /* local and remote; then the key, and what is looked up */
	__u32 payload_bytes;      /* behind it */
	__u8 tos;
	__u8 is_fragment;
};

/* Is the packet GRE over IPv4 or IPv6? The cursor stands behind its IP header, and then behind
 * extension headers.
 */
static __always_inline int parse_outer(const struct packet *packet, struct cursor *cursor,
                                       struct outer *outer)
{
	int is_fragment = 0;
	__u8 protocol;

	if (is_ipv4(packet)) {
		protocol = ip4(packet)->protocol;
		is_fragment = is_fragment4(ip4(packet));
		outer->tos = ip4(packet)->tos;
	} else {
		/* An IPv4 address written so must not reach a tunnel over IPv4. */
		if (is_mapped6(&ip6(packet)->daddr))
			return 0;
		protocol = parse_ipv6_upper(cursor, ip6(packet)->nexthdr,
		                            packet->bytes - sizeof(struct ipv6hdr), &is_fragment);
		outer->tos = traffic_class(ip6(packet));
	}
	if (protocol != IPPROTO_GRE)
		return 0;
	outer->is_fragment = is_fragment;
	outer->payload_bytes = packet->bytes - (cursor->at - packet->at);
	outer->endpoint.local = packet_destination(packet);
	outer->endpoint.remote = packet_source(packet);
	return 1;
}

static __always_inline int is_pair(struct endpoint *endpoint)
{
	endpoint->key = 0;
	endpoint->kind = ENDPOINT_PAIR;
	return lookup_endpoint(endpoint) != 0;
}

/* GRE to a local of ours that no tunnel takes: one counter, no more work. Floods end here. */
static __always_inline int refuse_unmatched(struct endpoint *endpoint)
{
	__u32 first = 0;
	struct settings *settings;
	int is_known = is_pair(endpoint);

	if (!is_known && !is_local(&endpoint->local))
		return pass_unrelated();
	settings = map_lookup(MAP_SETTINGS, &first);
	if (settings && settings->unknown_gre_pass)
		return pass(is_known ? PASS_KEY_MISMATCH : PASS_UNKNOWN_TUNNEL);
	return drop(is_known ? DROP_KEY_MISMATCH : DROP_UNKNOWN_TUNNEL);
}

/* From a known remote a broken packet has its reason; from a stranger it is just a stranger's. */
static __always_inline int refuse_broken(struct endpoint *endpoint, __u32 reason)
{
	return is_pair(endpoint) ? drop(reason) : refuse_unmatched(endpoint);
}

/* RFC 2784 section 2.3.1: only version 0 is ours; version 1 is PPTP's (RFC 2637). */
static __always_inline int refuse_version(struct endpoint *endpoint, __be16 flags)
{
	if ((flags & GRE_VERSION_MASK) != GRE_VERSION_PPTP)
		return refuse_broken(endpoint, DROP_GRE_VERSION);
	return is_local(&endpoint->local) ? pass(PASS_GRE_VERSION) : pass_unrelated();
}

/* Inner packets that nobody honest sends through this tunnel. What an Ethernet tunnel carries is
 * for whoever is behind its port to judge.
 */
static __always_inline int refuse_inner(const struct packet *packet, const struct outer *outer)
{
	struct ip_address destination;
	__u8 protocol;

	/* Behind labels no source can be seen: where only some are allowed, none is. */
	if (packet->protocol == bpf_htons(ETH_P_MPLS_UC) && packet->from->flags & TUNNEL_SOURCES)
		return drop(DROP_INNER_SOURCE);
	if (packet->protocol != bpf_htons(ETH_P_IP) && packet->protocol != bpf_htons(ETH_P_IPV6))
		return NEXT_STAGE;
	if (is_ipv4(packet) ? is_martian_source4(ip4(packet)->saddr)
	                    : is_martian_source6(ip6(packet)))
		return drop(DROP_INNER_SOURCE);
	if (!is_allowed_source(packet))
		return drop(DROP_INNER_SOURCE);
	destination = packet_destination(packet);
	if (is_same_address(&destination, &outer->endpoint.local))
		return drop(DROP_LOOPED_BACK);
	protocol = is_ipv4(packet) ? ip4(packet)->protocol : ip6(packet)->nexthdr;
	if (protocol == IPPROTO_GRE && is_local(&destination))
		return drop(DROP_NESTED_TUNNEL);
	return NEXT_STAGE;
}

/* RFC 2890 section 2.2: old and repeated numbers are discarded, gaps are not. */
static __always_inline int refuse_sequence(const struct packet *packet, __be16 flags, __be32 number)
{
	if (!(packet->from->flags & TUNNEL_ISEQ))
		return NEXT_STAGE;
	if (!(flags & GRE_SEQUENCE_BIT))
		return drop(DROP_GRE_SEQUENCE_MISSING);
	if (!accept_sequence(packet->from->id, number))
		return drop(DROP_GRE_SEQUENCE);
	return NEXT_STAGE;
}

/* A driver may put a long frame into several pieces, of which only the first can be read: headers
 * that are not in it are not missing.
 */
static __always_inline __u32 unless_split(const struct packet *packet, const struct cursor *cursor,
                                          __u32 reason)
{
	__u32 readable = frame_end(packet) - frame_start(packet);

	if (readable < packet->frame_bytes && readable < cursor->at + sizeof(struct ipv6hdr))
		return DROP_SPLIT_HEADERS;
	return reason;
}

static __always_inline int drop_malformed(const struct packet *packet, const struct cursor *cursor)
{
	return drop(unless_split(packet, cursor, DROP_INNER_MALFORMED));
}

/* Read what GRE carries, `bytes` at the cursor: it becomes the packet. */
static __always_inline int parse_carried(struct packet *packet, struct cursor *cursor,
                                         __be16 protocol, __u32 bytes)
{
	if (packet->from->flags & TUNNEL_ETHERNET) {
		if (protocol != bpf_htons(ETH_P_TEB))
			return drop(DROP_UNKNOWN_PROTOCOL);
		return carry_frame(packet, cursor, bytes) ? NEXT_STAGE
		                                          : drop_malformed(packet, cursor);
	}
	if (protocol == bpf_htons(ETH_P_MPLS_UC))
		return carry_mpls(packet, cursor, bytes) ? NEXT_STAGE
		                                         : drop_malformed(packet, cursor);
	if (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6))
		return drop(DROP_UNKNOWN_PROTOCOL);
	if (!parse_ip(packet, cursor, protocol, bytes))
		return drop_malformed(packet, cursor);
	carry_ip(packet);
	return NEXT_STAGE;
}

/* `cursor` stands behind the outer header. On NEXT_STAGE the packet is what was carried. */
static __always_inline int decap(struct packet *packet, struct cursor *cursor, struct outer *outer)
{
	struct endpoint *endpoint = &outer->endpoint;
	__u32 start = cursor->at;
	struct gre_base *gre;
	struct gre_words words = {};
	__be16 flags, protocol;
	__u32 header, *slot;
	int verdict;

	/* A delivery fragment holds no whole GRE packet, and reassembly is not XDP's to do. */
	if (outer->is_fragment)
		return refuse_broken(endpoint, DROP_OUTER_FRAGMENT);
	gre = parse_gre_base(cursor);
	if (!gre || outer->payload_bytes < sizeof(*gre))
		return refuse_broken(endpoint, unless_split(packet, cursor, DROP_GRE_TRUNCATED));
	flags = gre->flags;
	protocol = gre->protocol;
	if (flags & GRE_VERSION_MASK)
		return refuse_version(endpoint, flags);
	/* RFC 2784 section 2.3: before anything that this bit might have moved is read. */
	if (flags & GRE_ROUTING_BIT)
		return refuse_broken(endpoint, DROP_GRE_ROUTING_BIT);
	if (!parse_gre_words(cursor, flags, &words))
		return refuse_broken(endpoint, unless_split(packet, cursor, DROP_GRE_TRUNCATED));
	header = cursor->at - start;
	if (header > outer->payload_bytes)
		return refuse_broken(endpoint, DROP_GRE_TRUNCATED);

	endpoint->key = words.key;
	endpoint->kind = flags & GRE_KEY_BIT ? ENDPOINT_KEYED : ENDPOINT_KEYLESS;
	slot = lookup_endpoint(endpoint);
	if (!slot)
		return refuse_unmatched(endpoint);
	packet->from = lookup_tunnel(*slot);
	if (!packet->from || !packet->from->inner_ifindex)
		return drop(DROP_NO_TUNNEL);
	packet->is_decapsulated = 1;
	asm volatile("" : "+r"(packet->is_decapsulated));

	if (flags & GRE_RESERVED_BITS)
		return drop(DROP_GRE_RESERVED_BITS);
	if (flags & GRE_CHECKSUM_BIT) {
		if (sum_frame(packet->ctx, start, outer->payload_bytes) != 0xffff)
			return drop(DROP_GRE_CHECKSUM);
	} else if (packet->from->flags & TUNNEL_ICSUM) {
		return drop(DROP_GRE_CHECKSUM_MISSING);
	}
	verdict = parse_carried(packet, cursor, protocol, outer->payload_bytes - header);
	if (verdict != NEXT_STAGE)
		return verdict;
	verdict = refuse_inner(packet, outer);
	if (verdict != NEXT_STAGE)
		return verdict;
	if (!propagate_ecn(packet, outer->tos))
		return drop(DROP_ECN_CE_NOT_ECT);
	/* Last: a packet that is dropped for another reason must not use up its number. */
	return refuse_sequence(packet, flags, words.sequence);
}
