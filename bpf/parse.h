/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Reading headers: each parse_* checks, advances the cursor and returns the header or 0. */
#pragma once

#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>

#include "checksum.h"

#define IP_OFFSET_MASK    bpf_htons(0x1fff)
#define IP_MORE_FRAGMENTS bpf_htons(0x2000)
#define IP_DONT_FRAGMENT  bpf_htons(0x4000)

/* GRE header flags (RFC 2784 section 2, RFC 2890 section 2), as they stand on the wire. */
#define GRE_CHECKSUM_BIT  bpf_htons(0x8000)
#define GRE_ROUTING_BIT   bpf_htons(0x4000)
#define GRE_KEY_BIT       bpf_htons(0x2000)
#define GRE_SEQUENCE_BIT  bpf_htons(0x1000)
#define GRE_RESERVED_BITS bpf_htons(0x0c00) /* bits 4 and 5: discard; 6..12 are ignored */
#define GRE_VERSION_MASK  bpf_htons(0x0007)
#define GRE_VERSION_PPTP  bpf_htons(0x0001) /* RFC 2637 */

struct gre_base {
	__be16 flags;
	__be16 protocol;
};

/* Where we are in a frame. Lengths that a header states move it by a number read from the frame,
 * never by one path for each length: the verifier then follows one state, not all their products.
 */
struct cursor {
	struct xdp_md *ctx;
	void *at;
	void *end; /* of the frame; lengths inside headers are checked apart */
};

static __always_inline struct ethhdr *parse_ethernet(struct cursor *cursor)
{
	struct ethhdr *eth = cursor->at;

	if ((void *)(eth + 1) > cursor->end)
		return 0;
	cursor->at = eth + 1;
	return eth;
}

static __always_inline __u32 ip_header_bytes(const struct iphdr *ip)
{
	return ip->ihl * 4;
}

/* Bytes of the frame before the cursor. */
static __always_inline __u32 cursor_offset(const struct cursor *cursor)
{
	return cursor->at - (void *)(long)cursor->ctx->data;
}

/* Bytes of the frame from the cursor on. */
static __always_inline __u32 cursor_left(const struct cursor *cursor)
{
	return cursor->end - cursor->at;
}

/* A whole, checksummed IPv4 header whose packet fits in `available` bytes (RFC 1812 5.2.2). */
static __always_inline struct iphdr *parse_ipv4(struct cursor *cursor, __u32 available)
{
	struct iphdr *ip = cursor->at;
	__u32 length, header;

	if ((void *)(ip + 1) > cursor->end)
		return 0;
	if (ip->version != 4 || ip->ihl < 5)
		return 0;
	header = ip_header_bytes(ip);
	length = bpf_ntohs(ip->tot_len);
	if (length < header || length > available)
		return 0;
	if (ip->ihl == 5) {
		if (fold(sum_words(ip, 5)) != 0xffff)
			return 0;
	} else if (sum_frame(cursor->ctx, cursor_offset(cursor), header) != 0xffff) {
		return 0;
	}
	cursor->at = (void *)ip + header;
	return cursor->at > cursor->end ? 0 : ip;
}

static __always_inline struct ipv6hdr *parse_ipv6(struct cursor *cursor, __u32 available)
{
	struct ipv6hdr *ip6 = cursor->at;

	if ((void *)(ip6 + 1) > cursor->end)
		return 0;
	if (ip6->version != 6)
		return 0;
	if (sizeof(*ip6) + bpf_ntohs(ip6->payload_len) > available)
		return 0;
	cursor->at = ip6 + 1;
	return ip6;
}

static __always_inline struct gre_base *parse_gre_base(struct cursor *cursor)
{
	struct gre_base *gre = cursor->at;

	if ((void *)(gre + 1) > cursor->end)
		return 0;
	cursor->at = gre + 1;
	return gre;
}

/* What the optional words of a GRE header say, where their bits are set. */
struct gre_words {
	__be32 key;
	__be32 sequence;
};

/* Read and skip the optional words behind the base header (RFC 2890 section 2). */
static __always_inline int parse_gre_words(struct cursor *cursor, __be16 flags,
                                           struct gre_words *words)
{
	__u16 bits = bpf_ntohs(flags);
	__u32 key_at = bits >> 15 << 2;
	__u32 sequence_at = key_at + ((bits >> 13 & 1) << 2);
	__u32 bytes = sequence_at + ((bits >> 12 & 1) << 2);
	__be32 *word;

	if (flags & GRE_KEY_BIT) {
		word = cursor->at + key_at;
		if ((void *)(word + 1) > cursor->end)
			return 0;
		words->key = *word;
	}
	if (flags & GRE_SEQUENCE_BIT) {
		word = cursor->at + sequence_at;
		if ((void *)(word + 1) > cursor->end)
			return 0;
		words->sequence = *word;
	}
	cursor->at += bytes;
	return cursor->at <= cursor->end;
}

static __always_inline int is_fragment4(const struct iphdr *ip)
{
	return (ip->frag_off & (IP_MORE_FRAGMENTS | IP_OFFSET_MASK)) != 0;
}

static __always_inline int is_multicast4(__be32 address)
{
	return (address & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) ||
	       address == bpf_htonl(0xffffffff);
}

static __always_inline int is_multicast6(const struct in6_addr *address)
{
	return address->s6_addr[0] == 0xff;
}

static __always_inline int is_link_local6(const struct in6_addr *address)
{
	return address->s6_addr[0] == 0xfe && (address->s6_addr[1] & 0xc0) == 0x80;
}

/* Sources that no packet from a wire may have (RFC 1812 5.3.7, RFC 6890; DHCP's 0.0.0.0 aside,
 * which is never routed either).
 */
static __always_inline int is_martian_source4(__be32 address)
{
	__u8 first = bpf_ntohl(address) >> 24;

	return first == 0 || first == 127 || first >= 224;
}

static __always_inline int is_loopback6(const struct in6_addr *address)
{
	return !address->s6_addr32[0] && !address->s6_addr32[1] && !address->s6_addr32[2] &&
	       address->s6_addr32[3] == bpf_htonl(1);
}

static __always_inline int is_unspecified6(const struct in6_addr *address)
{
	return !address->s6_addr32[0] && !address->s6_addr32[1] && !address->s6_addr32[2] &&
	       !address->s6_addr32[3];
}

/* ::ffff:0:0/96 */
static __always_inline int is_mapped6(const struct in6_addr *address)
{
	return !address->s6_addr32[0] && !address->s6_addr32[1] &&
	       address->s6_addr32[2] == bpf_htonl(0xffff);
}

/* RFC 4291 2.5.2, 2.5.3 and 2.7, RFC 6890. Duplicate address detection and multicast listeners
 * speak from the unspecified address, to multicast destinations only.
 */
static __always_inline int is_martian_source6(const struct ipv6hdr *ip6)
{
	const struct in6_addr *source = &ip6->saddr;

	return is_multicast6(source) || is_loopback6(source) || is_mapped6(source) ||
	       (is_unspecified6(source) && !is_multicast6(&ip6->daddr));
}
