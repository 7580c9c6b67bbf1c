/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Sending GRE: the outer header, and the way to the remote. */
#pragma once

#include "deliver.h"
#include "ecn.h"
#include "mss.h"
#include "sequence.h"

struct outer4 {
	struct ethhdr eth;
	struct iphdr ip;
	struct gre_base gre;
} __attribute__((packed));

/* What the outer header takes from the inner one; read before the frame is resized. */
struct inherited {
	__be16 protocol;
	__be16 dont_fragment;
	__u8 tos;
	__u8 ttl;
};

static __always_inline struct inherited inherit(const struct packet *packet,
                                                const struct tunnel *tunnel)
{
	__u8 tos = packet_tos(packet);
	struct inherited outer = {
		.protocol = packet_ethertype(packet),
		.ttl = tunnel->ttl,
		.tos = tos,
	};

	/* RFC 6040 section 4.1, normal mode: the outer ECN field is always the inner one. */
	if (!(tunnel->flags & TUNNEL_TOS_INHERIT))
		outer.tos = (tunnel->tos & ~ECN_MASK) | (tos & ECN_MASK);
	if (tunnel->flags & TUNNEL_TTL_INHERIT)
		outer.ttl = packet_ttl(packet);
	if (tunnel->flags & TUNNEL_PMTUDISC)
		outer.dont_fragment = IP_DONT_FRAGMENT;
	else if (is_ipv4(packet))
		outer.dont_fragment = ip4(packet)->frag_off & IP_DONT_FRAGMENT;
	return outer;
}

static __always_inline void fill_outer_ipv4(struct iphdr *ip, const struct tunnel *tunnel,
                                            const struct inherited *outer, __u32 bytes)
{
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = outer->tos;
	ip->tot_len = bpf_htons(bytes);
	/* RFC 6864: only a datagram that may be fragmented needs an identification. */
	ip->id = outer->dont_fragment ? 0 : (__be16)bpf_get_prandom_u32();
	ip->frag_off = outer->dont_fragment;
	ip->ttl = outer->ttl;
	ip->protocol = IPPROTO_GRE;
	ip->check = 0;
	ip->saddr = tunnel->local;
	ip->daddr = tunnel->remote;
	ip->check = ~fold(sum_words(ip, 5));
}

/* Where the remote is. Looked up from the inner end, whose forwarding flag is ours to set. */
static __always_inline int lookup_remote(struct packet *packet, struct bpf_fib_lookup *fib,
                                         const struct tunnel *tunnel, __u8 tos, __u32 bytes)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->family = AF_INET;
	fib->ifindex = tunnel->inner_ifindex;
	fib->l4_protocol = IPPROTO_GRE;
	fib->tot_len = bytes;
	fib->tos = tos;
	fib->ipv4_src = tunnel->local;
	fib->ipv4_dst = tunnel->remote;
	return bpf_fib_lookup(packet->ctx, fib, sizeof(*fib), 0);
}

static __always_inline int drop_no_next_hop(int result)
{
	if (result == BPF_FIB_LKUP_RET_NO_NEIGH)
		return drop(DROP_NO_NEIGHBOUR);
	if (result == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return drop(DROP_TOO_BIG);
	return drop(DROP_NO_ROUTE);
}

/* The route to the remote leaves by a device that we may not send to. */
static __always_inline int drop_egress(__u32 ifindex)
{
	__u32 id;

	if (lookup_egress_tunnel(ifindex, &id))
		return drop(DROP_NESTED_TUNNEL);
	return drop(DROP_EGRESS_UNATTACHED);
}

/* Bytes of the GRE header that a tunnel sends. */
static __always_inline __u32 gre_header_bytes(const struct tunnel *tunnel)
{
	__u32 flags = tunnel->flags;
	__u32 words = !!(flags & TUNNEL_OCSUM) + !!(flags & TUNNEL_OKEY) + !!(flags & TUNNEL_OSEQ);

	return sizeof(struct gre_base) + words * sizeof(__be32);
}

/* Fill the optional words behind the base header, the checksum last: it covers the others and all
 * that follows. Returns 0 on success.
 */
static __always_inline int fill_gre_words(struct packet *packet, struct outer4 *outer,
                                          const struct tunnel *tunnel, __u32 id, __u32 payload)
{
	void *end = frame_end(packet);
	__be32 *word = (void *)(outer + 1);
	__be32 *checksum = 0;
	int sum;

	if (tunnel->flags & TUNNEL_OCSUM) {
		if ((void *)(word + 1) > end)
			return -1;
		*word = 0;
		checksum = word++;
		outer->gre.flags |= GRE_CHECKSUM_BIT;
	}
	if (tunnel->flags & TUNNEL_OKEY) {
		if ((void *)(word + 1) > end)
			return -1;
		*word++ = tunnel->okey;
		outer->gre.flags |= GRE_KEY_BIT;
	}
	if (tunnel->flags & TUNNEL_OSEQ) {
		if ((void *)(word + 1) > end)
			return -1;
		*word = next_sequence(id);
		outer->gre.flags |= GRE_SEQUENCE_BIT;
	}
	if (!checksum)
		return 0;
	sum = sum_frame(packet->ctx, sizeof(*outer) - sizeof(outer->gre), payload);
	if (sum < 0)
		return -1;
	*(__sum16 *)checksum = ~sum;
	return 0;
}

/* Put the packet into the tunnel and send it to the next hop towards its remote. Nothing is handed
 * over from here: the kernel would send it back through the tunnel's inner end.
 */
static __always_inline int encap(struct packet *packet, struct tunnel *tunnel, __u32 id)
{
	struct inherited inherited = inherit(packet, tunnel);
	__u32 payload = gre_header_bytes(tunnel) + packet->bytes;
	struct bpf_fib_lookup fib;
	struct outer4 *outer;
	__u32 outer_bytes;
	int result;

	clamp_mss(packet, tunnel);
	/* What the network may fragment needs no room on the path. */
	outer_bytes = sizeof(struct iphdr) + payload;
	result = lookup_remote(packet, &fib, tunnel, inherited.tos,
	                       inherited.dont_fragment ? outer_bytes : 0);
	if (is_egress_known(result) && redirect_to(fib.ifindex) != XDP_REDIRECT)
		return drop_egress(fib.ifindex);
	if (result != BPF_FIB_LKUP_RET_SUCCESS)
		return drop_no_next_hop(result);
	if (resize_frame(packet, sizeof(*outer) - sizeof(outer->gre) + gre_header_bytes(tunnel)))
		return drop(DROP_NO_HEADROOM);
	outer = frame_start(packet);
	if ((void *)(outer + 1) > frame_end(packet))
		return drop(DROP_NO_HEADROOM);
	fill_ethernet(&outer->eth, fib.dmac, fib.smac, bpf_htons(ETH_P_IP));
	fill_outer_ipv4(&outer->ip, tunnel, &inherited, outer_bytes);
	outer->gre.flags = 0;
	outer->gre.protocol = inherited.protocol;
	if (fill_gre_words(packet, outer, tunnel, id, payload))
		return drop(DROP_NO_HEADROOM);
	if (packet->from)
		count_received(packet->from_id, packet->bytes);
	count_transmitted(id, packet->bytes);
	return XDP_REDIRECT;
}
