/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Lowering the TCP maximum segment size of a SYN to what the tunnel carries (RFC 4459 section 3.2).
 */
#pragma once

#include <uapi/linux/tcp.h>

#include "packet.h"

#define TCP_OPTIONS_MAX 40
/* A power of two above it: positions are masked so that the verifier sees their bound. */
#define TCP_OPTIONS_ROOM     64
#define TCP_OPTION_END       0
#define TCP_OPTION_NOP       1
#define TCP_OPTION_MSS       2
#define TCP_OPTION_MSS_BYTES 4

static __always_inline __u8 option_octet(const struct scratch *options, __u32 at)
{
	return options->block[at & (TCP_OPTIONS_ROOM - 1)];
}

/* Where the MSS option stands among the options, or -1: absent, or the list is malformed. As in
 * sum_frame(), the position lives in the map so that the verifier forgets it.
 */
static __always_inline int find_mss(struct scratch *options)
{
	options->offset = 0;
	for (int i = 0; i < TCP_OPTIONS_MAX; i++) {
		/* volatile: the compiler must not keep them where the verifier remembers. */
		__u32 at = *(volatile __u32 *)&options->offset;
		__u32 bytes = *(volatile __u32 *)&options->bytes;
		__u8 kind, length;

		if (at >= bytes)
			return -1;
		kind = option_octet(options, at);
		if (kind == TCP_OPTION_END)
			return -1;
		if (kind == TCP_OPTION_NOP) {
			options->offset = at + 1;
			continue;
		}
		length = option_octet(options, at + 1);
		if (length < 2 || at + length > bytes)
			return -1;
		if (kind == TCP_OPTION_MSS)
			return length == TCP_OPTION_MSS_BYTES ? (int)at : -1;
		options->offset = at + length;
	}
	return -1;
}

/* The TCP header of a packet that begins a connection, or 0. */
static __always_inline struct tcphdr *find_syn(const struct packet *packet, __u32 *header_bytes)
{
	struct tcphdr *tcp;

	if (is_ipv4(packet)) {
		if (ip4(packet)->protocol != IPPROTO_TCP || ip4(packet)->ihl != 5 ||
		    is_fragment4(ip4(packet)))
			return 0;
		*header_bytes = sizeof(struct iphdr);
		tcp = (void *)(ip4(packet) + 1);
	} else if (is_ipv6(packet)) {
		if (ip6(packet)->nexthdr != IPPROTO_TCP)
			return 0;
		*header_bytes = sizeof(struct ipv6hdr);
		tcp = (void *)(ip6(packet) + 1);
	} else {
		return 0;
	}
	if ((void *)(tcp + 1) > frame_end(packet) || !tcp->syn)
		return 0;
	return tcp;
}

static __always_inline __u16 swap_octets(__u16 word)
{
	return (__u16)(word << 8 | word >> 8);
}

/* Lower the MSS of a SYN or SYN-ACK, never raise it; anything odd is left as it is. */
static __always_inline void clamp_mss(struct packet *packet, const struct tunnel *tunnel)
{
	__u16 most = is_ipv4(packet) ? tunnel->mss_ipv4 : tunnel->mss_ipv6;
	__u16 mss, lowered = bpf_htons(most);
	__u32 first = 0, header, options_at;
	struct scratch *options;
	struct tcphdr *tcp;
	__u64 bytes;
	int at;

	if (!most)
		return;
	tcp = find_syn(packet, &header);
	if (!tcp || tcp->doff < 6 || header + tcp->doff * 4 > packet->bytes)
		return;
	options = map_lookup(MAP_SCRATCH, &first);
	if (!options)
		return;
	bytes = (tcp->doff - 5) * 4;
	options->bytes = bytes;
	options_at = packet->at + header + sizeof(*tcp);
	/* As in sum_block(). */
	asm volatile("" : "+r"(bytes));
	bytes = ((bytes - 1) & (TCP_OPTIONS_ROOM - 1)) + 1;
	if (bpf_xdp_load_bytes(packet->ctx, options_at, options->block, bytes))
		return;
	at = find_mss(options);
	if (at < 0)
		return;
	mss = (__u16)option_octet(options, at + 2) | (__u16)option_octet(options, at + 3) << 8;
	if (bpf_ntohs(mss) <= most)
		return;
	if (bpf_xdp_store_bytes(packet->ctx, options_at + at + 2, &lowered, sizeof(lowered)))
		return;
	/* At an odd position the value lies across two words of the checksum. */
	if (at & 1)
		replace_checksummed(&tcp->check, swap_octets(mss), swap_octets(lowered));
	else
		replace_checksummed(&tcp->check, mss, lowered);
}
