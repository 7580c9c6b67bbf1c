/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Sending GRE: the outer headers, and the way to the remote. */
#pragma once

#include "deliver.h"
#include "ecn.h"
#include "mss.h"
#include "sequence.h"

/* Where there is no inner TTL to inherit. */
#define DEFAULT_TTL 64

/* What the outer header takes from the inner one; read before the frame is resized. */
struct inherited {
	__be16 dont_fragment;
	__u8 tos;
	__u8 ttl;
	__be32 flow_label;
};

/* The same for all packets of a flow: routers of the underlay spread flows by it (RFC 6438). */
static __always_inline __be32 flow_label(const struct packet *packet)
{
	struct ip_address source, destination;
	__u32 hash;

	if (!packet->version)
		return 0;
	source = packet_source(packet);
	destination = packet_destination(packet);
	hash = source.word[0] ^ source.word[1] ^ source.word[2] ^ source.word[3];
	hash = mix(hash) ^ destination.word[0] ^ destination.word[1];
	hash = mix(hash) ^ destination.word[2] ^ destination.word[3];
	return bpf_htonl(mix(hash) >> 12);
}

static __always_inline struct inherited inherit(const struct packet *packet,
                                                const struct tunnel *tunnel)
{
	int is_outer_ipv6 = tunnel->flags & TUNNEL_IPV6;
	__u8 tos = packet_tos(packet);
	struct inherited outer = {
		.ttl = tunnel->ttl,
		.tos = tos,
	};

	/* RFC 6040 section 4.1, normal mode: the outer ECN field is always the inner one. */
	if (!(tunnel->flags & TUNNEL_TOS_INHERIT))
		outer.tos = (tunnel->tos & ~ECN_MASK) | (tos & ECN_MASK);
	if (tunnel->flags & TUNNEL_TTL_INHERIT)
		outer.ttl = packet->version ? packet_ttl(packet) : DEFAULT_TTL;
	if (tunnel->flags & (TUNNEL_PMTUDISC | TUNNEL_IPV6))
		outer.dont_fragment = IP_DONT_FRAGMENT;
	else if (is_ipv4(packet))
		outer.dont_fragment = ip4(packet)->frag_off & IP_DONT_FRAGMENT;
	/* Longer than a narrow path takes, and nobody will make it shorter: better in fragments. */
	if (packet->bytes > tunnel->mtu && !is_outer_ipv6 &&
	    !(is_ipv4(packet) && ip4(packet)->frag_off & IP_DONT_FRAGMENT))
		outer.dont_fragment = 0;
	if (tunnel->flags & TUNNEL_IPV6)
		outer.flow_label = flow_label(packet);
	outer.dont_fragment = forget(packet->ctx, outer.dont_fragment) & IP_DONT_FRAGMENT;
	return outer;
}

static __always_inline int fill_outer_ipv4(const struct packet *packet, __u32 offset,
                                           const struct tunnel *tunnel,
                                           const struct inherited *outer, __u32 payload)
{
	struct iphdr *ip = frame_at(packet, offset, sizeof(*ip));

	if (!ip)
		return 0;
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = outer->tos;
	ip->tot_len = bpf_htons(sizeof(*ip) + payload);
	/* RFC 6864: only a datagram that may be fragmented needs an identification. */
	ip->id = outer->dont_fragment ? 0 : (__be16)bpf_get_prandom_u32();
	ip->frag_off = outer->dont_fragment;
	ip->ttl = outer->ttl;
	ip->protocol = IPPROTO_GRE;
	ip->check = 0;
	ip->saddr = tunnel->local.word[3];
	ip->daddr = tunnel->remote.word[3];
	ip->check = ~fold(sum_words(ip, 5));
	return 1;
}

static __always_inline int fill_outer_ipv6(const struct packet *packet, __u32 offset,
                                           const struct tunnel *tunnel,
                                           const struct inherited *outer, __u32 payload)
{
	struct ipv6hdr *ip = frame_at(packet, offset, sizeof(*ip));

	if (!ip)
		return 0;
	*(__be32 *)ip = bpf_htonl(6U << 28 | (__u32)outer->tos << 20) | outer->flow_label;
	ip->payload_len = bpf_htons(payload);
	ip->nexthdr = IPPROTO_GRE;
	ip->hop_limit = outer->ttl;
	__builtin_memcpy(&ip->saddr, &tunnel->local, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &tunnel->remote, sizeof(ip->daddr));
	return 1;
}

/* Where the remote is. Looked up from the inner end, whose forwarding flag is ours to set. */
static __always_inline int lookup_remote(const struct packet *packet, struct bpf_fib_lookup *fib,
                                         const struct tunnel *tunnel, __u8 tos, __u32 bytes)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = tunnel->inner_ifindex;
	fib->l4_protocol = IPPROTO_GRE;
	fib->tot_len = bytes;
	if (tunnel->flags & TUNNEL_IPV6) {
		fib->family = AF_INET6;
		fib->flowinfo = bpf_htonl((__u32)tos << 20);
		__builtin_memcpy(fib->ipv6_src, &tunnel->local, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, &tunnel->remote, sizeof(fib->ipv6_dst));
	} else {
		fib->family = AF_INET;
		fib->tos = tos;
		fib->ipv4_src = tunnel->local.word[3];
		fib->ipv4_dst = tunnel->remote.word[3];
	}
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
	struct device *device = lookup_device(ifindex);

	if (device && device->role == DEVICE_TUNNEL)
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

static __always_inline int put_word(const struct packet *packet, __u32 offset, __be32 value)
{
	__be32 *word = frame_at(packet, offset, sizeof(*word));

	if (!word)
		return 0;
	*word = value;
	return 1;
}

/* Write the GRE header, the checksum last: it covers the rest and all that follows, `payload` bytes
 * with the header. Returns 0 where the frame ends before.
 */
static __always_inline int fill_gre(const struct packet *packet, __u32 offset,
                                    const struct tunnel *tunnel, __u32 payload)
{
	__u32 flags = tunnel->flags, checksum_at = offset + sizeof(struct gre_base);
	__u32 at = checksum_at;
	struct gre_base *gre = frame_at(packet, offset, sizeof(*gre));
	__sum16 *checksum;
	int sum;

	if (!gre)
		return 0;
	gre->flags = (flags & TUNNEL_OCSUM ? GRE_CHECKSUM_BIT : 0) |
	             (flags & TUNNEL_OKEY ? GRE_KEY_BIT : 0) |
	             (flags & TUNNEL_OSEQ ? GRE_SEQUENCE_BIT : 0);
	gre->protocol = packet->protocol;
	if (flags & TUNNEL_OCSUM) {
		if (!put_word(packet, at, 0))
			return 0;
		at += sizeof(__be32);
	}
	if (flags & TUNNEL_OKEY) {
		if (!put_word(packet, at, tunnel->okey))
			return 0;
		at += sizeof(__be32);
	}
	if (flags & TUNNEL_OSEQ) {
		if (!put_word(packet, at, next_sequence(tunnel->id)))
			return 0;
	}
	if (!(flags & TUNNEL_OCSUM))
		return 1;
	sum = sum_frame(packet->ctx, offset, payload);
	checksum = frame_at(packet, checksum_at, sizeof(*checksum));
	if (sum < 0 || !checksum)
		return 0;
	*checksum = ~sum;
	return 1;
}

/* Put what is carried into the tunnel and send it to the next hop towards its remote. Nothing is
 * handed over from here: the kernel would send it back through the tunnel's inner end.
 */
static __always_inline int encap(struct packet *packet, struct tunnel *tunnel)
{
	struct inherited inherited = inherit(packet, tunnel);
	int is_outer_ipv6 = tunnel->flags & TUNNEL_IPV6;
	__u32 payload = gre_header_bytes(tunnel) + packet->carried_bytes;
	__u32 ip_bytes = is_outer_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	struct bpf_fib_lookup fib;
	struct egress egress;
	int result, is_filled, must_fit;
	__u32 ip_at;

	clamp_mss(packet, tunnel);
	/* What the network may fragment needs no room on the path. A frame with tags, though, may
	 * be longer than even the first link takes.
	 */
	must_fit = inherited.dont_fragment || tunnel->flags & TUNNEL_ETHERNET;
	result = lookup_remote(packet, &fib, tunnel, inherited.tos,
	                       must_fit ? ip_bytes + payload : 0);
	if (is_egress_known(result) && redirect_to_egress(fib.ifindex, &egress) != XDP_REDIRECT)
		return drop_egress(fib.ifindex);
	if (result != BPF_FIB_LKUP_RET_SUCCESS)
		return drop_no_next_hop(result);
	/* Two families and three link headers are one layout from here on. */
	ip_at = forget(packet->ctx, link_bytes(&egress)) & 31;
	ip_bytes = forget(packet->ctx, ip_bytes) & 63;
	if (resize_frame(packet, ip_at + ip_bytes + gre_header_bytes(tunnel)))
		return drop(DROP_NO_HEADROOM);
	if (is_outer_ipv6)
		is_filled = fill_link(packet, &egress, fib.dmac, fib.smac, bpf_htons(ETH_P_IPV6)) &&
		            fill_outer_ipv6(packet, ip_at, tunnel, &inherited, payload);
	else
		is_filled = fill_link(packet, &egress, fib.dmac, fib.smac, bpf_htons(ETH_P_IP)) &&
		            fill_outer_ipv4(packet, ip_at, tunnel, &inherited, payload);
	if (!is_filled || !fill_gre(packet, ip_at + ip_bytes, tunnel, payload))
		return drop(DROP_NO_HEADROOM);
	count_transmitted(tunnel, packet->carried_bytes);
	if (!packet->is_decapsulated)
		return redirect(FORWARD_ENCAP);
	count_received(packet->from, packet->carried_bytes);
	return redirect(FORWARD_RELAY);
}
