/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* One frame on its way through a program: what is known of it, and how its size changes. */
#pragma once

#include "count.h"
#include "parse.h"

/* A stage returns a verdict, or this when the next stage decides. */
#define NEXT_STAGE (-1)

struct packet {
	struct xdp_md *ctx;
	void *ip; /* the IP header to route (inner, once decapsulated); dies at resize_frame() */
	__u32 version; /* 4 or 6. A number, because the verifier takes a pointer for maybe 0. */
	struct tunnel *from; /* the tunnel it came out of; 0 if from a LAN or this host */
	__u32 from_id;
	__u32 at;      /* where that IP header stands in the frame, in bytes */
	__u32 bytes;   /* length of the packet from that IP header */
	__u32 is_slow; /* has IP options or a hop-by-hop header: routers must look at them */
};

static __always_inline int is_ipv4(const struct packet *packet)
{
	return packet->version == 4;
}

static __always_inline struct iphdr *ip4(const struct packet *packet)
{
	return packet->ip;
}

static __always_inline struct ipv6hdr *ip6(const struct packet *packet)
{
	return packet->ip;
}

static __always_inline void *frame_start(const struct packet *packet)
{
	return (void *)(long)packet->ctx->data;
}

static __always_inline void *frame_end(const struct packet *packet)
{
	return (void *)(long)packet->ctx->data_end;
}

static __always_inline int is_own_mac(const __u8 *a, const __u8 *b)
{
	return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) |
	        (a[5] ^ b[5])) == 0;
}

/* Parse the IP header at the cursor as the packet to route; 0 if it is not a whole one. */
static __always_inline int parse_routed(struct packet *packet, struct cursor *cursor,
                                        __be16 protocol, __u32 available)
{
	packet->at = cursor_offset(cursor);
	if (protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = parse_ipv4(cursor, available);

		if (!ip)
			return 0;
		packet->ip = ip;
		packet->version = 4;
		packet->bytes = bpf_ntohs(ip->tot_len);
		packet->is_slow = ip->ihl > 5;
		return 1;
	}
	if (protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = parse_ipv6(cursor, available);

		if (!ip)
			return 0;
		packet->ip = ip;
		packet->version = 6;
		packet->bytes = sizeof(*ip) + bpf_ntohs(ip->payload_len);
		packet->is_slow = ip->nexthdr == IPPROTO_HOPOPTS;
		return 1;
	}
	return 0;
}

static __always_inline __u8 packet_ttl(const struct packet *packet)
{
	return is_ipv4(packet) ? ip4(packet)->ttl : ip6(packet)->hop_limit;
}

static __always_inline __be16 packet_ethertype(const struct packet *packet)
{
	return is_ipv4(packet) ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
}

/* Spend one hop (RFC 1812 5.3.1). The caller has checked that it is more than 1. */
static __always_inline void decrement_ttl(struct packet *packet)
{
	if (is_ipv4(packet)) {
		struct iphdr *ip = ip4(packet);
		__be16 *ttl_protocol = (__be16 *)&ip->ttl;
		__be16 before = *ttl_protocol;

		ip->ttl--;
		replace_checksummed(&ip->check, before, *ttl_protocol);
	} else {
		ip6(packet)->hop_limit--;
	}
}

/* Make the frame start `room` bytes before the routed packet and end with it (what follows is
 * Ethernet padding). Returns 0 on success; every pointer into the frame is void afterwards.
 */
static __always_inline int resize_frame(struct packet *packet, __u32 room)
{
	__u32 used = packet->at + packet->bytes;
	__u32 length = frame_end(packet) - frame_start(packet);

	if (length > used && bpf_xdp_adjust_tail(packet->ctx, (int)(used - length)))
		return -1;
	return bpf_xdp_adjust_head(packet->ctx, (int)(packet->at - room));
}
