/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Reading headers: each parse_* checks, advances the cursor and returns the header, or 0. */
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

/* Where we are in a frame. */
struct cursor {
	struct xdp_md *ctx;
	__u32 at;          /* bytes from the start of the frame */
	__u32 frame_bytes; /* of the whole frame, more than can be read directly if it has fragments
	                    */
};

/* All headers that we read end before this many bytes: two tags, outer IP with options, GRE, inner
 * Ethernet with two tags, inner IP with options. A power of two: offsets are masked by it.
 */
#define HEADERS_ROOM 256

/* The same number, but the verifier does not know that. It follows each path on its own as long as
 * it can tell them apart, and header lengths it tells apart: three link headers, twelve of IP and
 * eight of GRE would be all their products. After this they look alike.
 */
static __always_inline __u32 forget(struct xdp_md *ctx, __u32 number)
{
	__u32 unknown = ctx->rx_queue_index;

	number ^= unknown;
	asm volatile("" : "+r"(number));
	return number ^ unknown;
}

static __always_inline void advance(struct cursor *cursor, __u32 bytes)
{
	cursor->at = forget(cursor->ctx, cursor->at + bytes) & (HEADERS_ROOM - 1);
}

/* The next `bytes` octets, or 0 where the frame ends before. */
static __always_inline void *peek(const struct cursor *cursor, __u32 bytes)
{
	void *start = (void *)(long)cursor->ctx->data + cursor->at;

	return start + bytes > (void *)(long)cursor->ctx->data_end ? 0 : start;
}

/* Bytes of the frame from the cursor on; the cursor never is behind its end by more than that. */
static __always_inline __u32 cursor_left(const struct cursor *cursor)
{
	return cursor->frame_bytes < cursor->at ? 0 : cursor->frame_bytes - cursor->at;
}

/* The link header: Ethernet and up to two VLAN tags (IEEE 802.1Q, 802.1ad). */
struct link_header {
	__u8 addresses[2 * ETH_ALEN];
	__be16 words[5]; /* protocol; or tag, protocol; or tag, tag, protocol */
};

#define TAG_BYTES    4
#define VLAN_ID_MASK bpf_htons(0x0fff)

struct link {
	__be16 protocol; /* of what follows */
	__u32 tag_count;
	struct vlan_tag tags[VLAN_TAGS_MAX];
};

/* 1 or 0, computed rather than branched on, for forget()'s reason. */
static __always_inline __u32 is_vlan_protocol(__be16 protocol)
{
	__u64 c = protocol ^ bpf_htons(ETH_P_8021Q), s = protocol ^ bpf_htons(ETH_P_8021AD);

	asm volatile("" : "+r"(c), "+r"(s));
	return ((c - 1) | (s - 1)) >> 63;
}

/* Read and skip the link header; 0 if the frame is too short for anything to follow. */
static __always_inline int parse_link(struct cursor *cursor, struct link *link)
{
	struct link_header *header = peek(cursor, sizeof(*header));
	__u32 is_tagged, is_tagged_twice;
	__be16 *protocol;

	if (!header)
		return 0;
	is_tagged = is_vlan_protocol(header->words[0]);
	is_tagged_twice = is_tagged & is_vlan_protocol(header->words[2]);
	link->tag_count = is_tagged + is_tagged_twice;
	link->tags[0].protocol = header->words[0];
	link->tags[0].id = header->words[1] & VLAN_ID_MASK;
	link->tags[1].protocol = header->words[2] & -is_tagged_twice;
	link->tags[1].id = header->words[3] & VLAN_ID_MASK & -is_tagged_twice;
	advance(cursor, sizeof(header->addresses) + TAG_BYTES * link->tag_count);
	protocol = peek(cursor, sizeof(*protocol));
	if (!protocol)
		return 0;
	cursor->at += sizeof(*protocol);
	link->protocol = *protocol;
	return 1;
}

static __always_inline __u32 ip_header_bytes(const struct iphdr *ip)
{
	return ip->ihl * 4;
}

/* A whole, checksummed IPv4 header whose packet fits in `available` bytes (RFC 1812 5.2.2). */
static __always_inline struct iphdr *parse_ipv4(struct cursor *cursor, __u32 available)
{
	struct iphdr *ip = peek(cursor, sizeof(*ip));
	__u32 length, header;

	if (!ip)
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
	} else if (sum_header(cursor->ctx, cursor->at, header) != 0xffff) {
		return 0;
	}
	advance(cursor, header);
	return ip;
}

static __always_inline struct ipv6hdr *parse_ipv6(struct cursor *cursor, __u32 available)
{
	struct ipv6hdr *ip6 = peek(cursor, sizeof(*ip6));

	if (!ip6)
		return 0;
	if (ip6->version != 6)
		return 0;
	if (sizeof(*ip6) + bpf_ntohs(ip6->payload_len) > available)
		return 0;
	advance(cursor, sizeof(*ip6));
	return ip6;
}

/* RFC 2473 section 5.1, as Linux's ip6gre sends it unless told otherwise (encaplimit). */
struct encapsulation_limit {
	__u8 next_header;
	__u8 length;      /* 0: eight octets */
	__u8 option;      /* 4 */
	__u8 option_size; /* 1 */
	__u8 limit;
	__u8 pad[3]; /* one PadN option or three Pad1 */
};

static __always_inline int is_encapsulation_limit(const struct encapsulation_limit *header)
{
	int is_padded = header->pad[0] == 1 ? header->pad[1] == 1
	                                    : !(header->pad[0] | header->pad[1] | header->pad[2]);

	return header->length == 0 && header->option == 4 && header->option_size == 1 && is_padded;
}

/* RFC 8200 section 4.5. */
struct fragment_header {
	__u8 next_header;
	__u8 reserved;
	__be16 offset; /* in its upper 13 bits; the lowest says that more fragments follow */
	__be32 identification;
};

#define IPV6_NOT_WHOLE bpf_htons(0xfff9)

/* What an IPv6 packet carries, for our purposes: GRE stands behind the fixed header, or behind one
 * Destination Options header that holds a Tunnel Encapsulation Limit and nothing else, or behind a
 * fragment header. Whatever has other extension headers is the kernel's to read.
 * `available` bytes of the packet follow the fixed header.
 */
static __always_inline __u8 parse_ipv6_upper(struct cursor *cursor, __u8 next, __u32 available,
                                             int *is_fragment)
{
	/* Both headers that are read have this length. */
	if (available < sizeof(struct encapsulation_limit))
		return next;
	if (next == IPPROTO_DSTOPTS) {
		struct encapsulation_limit *limit = peek(cursor, sizeof(*limit));

		if (!limit || !is_encapsulation_limit(limit))
			return next;
		next = limit->next_header;
		advance(cursor, sizeof(*limit));
	} else if (next == IPPROTO_FRAGMENT) {
		struct fragment_header *fragment = peek(cursor, sizeof(*fragment));

		if (!fragment)
			return next;
		next = fragment->next_header;
		/* RFC 8200 section 4.5: the only fragment of a packet is a whole one. */
		*is_fragment = (fragment->offset & IPV6_NOT_WHOLE) != 0;
		advance(cursor, sizeof(*fragment));
	}
	return next;
}

static __always_inline struct gre_base *parse_gre_base(struct cursor *cursor)
{
	struct gre_base *gre = peek(cursor, sizeof(*gre));

	cursor->at += sizeof(*gre);
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
	__u32 start = cursor->at;
	__be32 *word;

	if (flags & GRE_KEY_BIT) {
		cursor->at = start + key_at;
		word = peek(cursor, sizeof(*word));
		if (!word)
			return 0;
		words->key = *word;
	}
	if (flags & GRE_SEQUENCE_BIT) {
		cursor->at = start + sequence_at;
		word = peek(cursor, sizeof(*word));
		if (!word)
			return 0;
		words->sequence = *word;
	}
	cursor->at = start;
	advance(cursor, bytes);
	return peek(cursor, 0) != 0;
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
