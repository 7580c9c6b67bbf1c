/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* One frame on its way through a program: what is known of it, and how its size changes. */
#pragma once

#include "count.h"
#include "parse.h"

/* A stage returns a verdict, or this when the next stage decides. */
#define NEXT_STAGE (-1)

struct packet {
	struct xdp_md *ctx;
	__u32 frame_bytes; /* of the frame as it came */

	/* What a tunnel carries: an IP packet, an MPLS label stack and what follows, or a frame. */
	__be16 protocol;     /* as GRE names it */
	__u32 carried_at;    /* where that starts in the frame, in bytes */
	__u32 carried_bytes; /* its length */

	/* The IP packet: what is carried, or what is in the frame that is carried. */
	__u32 version; /* 4 or 6; 0: there is none */
	void *ip;      /* its header; dies at resize_frame() */
	__u32 at;      /* where that stands in the frame, in bytes */
	__u32 bytes;   /* length of the packet from its header on */
	__u32 is_slow; /* has IP options or a hop-by-hop header: routers must look at them */

	/* Where it came out of a tunnel: that one. Whether it did is a number of its own: the
	 * compiler would test what it knows to go with the pointer, and the verifier does not know
	 * that.
	 */
	__u32 is_decapsulated;
	struct tunnel *from;
};

static __always_inline int is_ipv4(const struct packet *packet)
{
	return packet->version == 4;
}

static __always_inline int is_ipv6(const struct packet *packet)
{
	return packet->version == 6;
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

static __always_inline struct ip_address mapped_ipv4(__be32 address)
{
	struct ip_address mapped = {{0, 0, bpf_htonl(0xffff), address}};

	return mapped;
}

static __always_inline struct ip_address ipv6_address(const struct in6_addr *address)
{
	struct ip_address same;

	__builtin_memcpy(&same, address, sizeof(same));
	return same;
}

/* Every bit in has a say in every bit out. */
static __always_inline __u32 mix(__u32 hash)
{
	hash = (hash ^ hash >> 16) * 0x85ebca6b;
	hash = (hash ^ hash >> 13) * 0xc2b2ae35;
	return hash ^ hash >> 16;
}

static __always_inline int is_same_address(const struct ip_address *a, const struct ip_address *b)
{
	return ((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) |
	        (a->word[3] ^ b->word[3])) == 0;
}

static __always_inline struct ip_address packet_source(const struct packet *packet)
{
	return is_ipv4(packet) ? mapped_ipv4(ip4(packet)->saddr)
	                       : ipv6_address(&ip6(packet)->saddr);
}

static __always_inline struct ip_address packet_destination(const struct packet *packet)
{
	return is_ipv4(packet) ? mapped_ipv4(ip4(packet)->daddr)
	                       : ipv6_address(&ip6(packet)->daddr);
}

/* Parse the IP header at the cursor, of a packet of at most `available` bytes; 0 if it is not a
 * whole one.
 */
static __always_inline int parse_ip(struct packet *packet, struct cursor *cursor, __be16 protocol,
                                    __u32 available)
{
	packet->at = cursor->at;
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

/* The IP packet that was parsed is what a tunnel carries. */
static __always_inline void carry_ip(struct packet *packet)
{
	packet->protocol = is_ipv4(packet) ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	packet->carried_at = packet->at;
	packet->carried_bytes = packet->bytes;
}

/* The label stack at the cursor, and the `bytes` from there on, are what a tunnel carries
 * (RFC 4023). Returns 0 if there is no label.
 */
static __always_inline int carry_mpls(struct packet *packet, struct cursor *cursor, __u32 bytes)
{
	packet->protocol = bpf_htons(ETH_P_MPLS_UC);
	packet->carried_at = cursor->at;
	packet->carried_bytes = bytes;
	packet->version = 0;
	return bytes >= sizeof(__be32) && peek(cursor, sizeof(__be32));
}

/* The Ethernet frame at the cursor, of `bytes`, is what a tunnel carries. An IP packet in it is
 * looked at as well: its congestion mark and its MSS concern the tunnel. Returns 0 if the frame
 * has no Ethernet header.
 */
static __always_inline int carry_frame(struct packet *packet, struct cursor *cursor, __u32 bytes)
{
	struct link link;

	packet->protocol = bpf_htons(ETH_P_TEB);
	packet->carried_at = cursor->at;
	packet->carried_bytes = bytes;
	packet->version = 0;
	if (bytes < sizeof(struct ethhdr) || !peek(cursor, sizeof(struct ethhdr)))
		return 0;
	if (parse_link(cursor, &link) && cursor->at - packet->carried_at < bytes &&
	    !parse_ip(packet, cursor, link.protocol, bytes - (cursor->at - packet->carried_at)))
		packet->version = 0;
	return 1;
}

static __always_inline __u8 packet_ttl(const struct packet *packet)
{
	return is_ipv4(packet) ? ip4(packet)->ttl : ip6(packet)->hop_limit;
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

/* Make the frame start `room` bytes before what is carried and end with it (what follows is
 * Ethernet padding). Returns 0 on success; every pointer into the frame is void afterwards.
 */
static __always_inline int resize_frame(struct packet *packet, __u32 room)
{
	__u32 used = packet->carried_at + packet->carried_bytes;

	if (packet->frame_bytes > used &&
	    bpf_xdp_adjust_tail(packet->ctx, (int)(used - packet->frame_bytes)))
		return -1;
	return bpf_xdp_adjust_head(packet->ctx, (int)(packet->carried_at - room));
}

/* `bytes` octets of the frame at an offset below HEADERS_ROOM, or 0 where it ends before. */
static __always_inline void *frame_at(const struct packet *packet, __u32 offset, __u32 bytes)
{
	void *start = frame_start(packet) + (forget(packet->ctx, offset) & (HEADERS_ROOM - 1));

	return start + bytes > frame_end(packet) ? 0 : start;
}
