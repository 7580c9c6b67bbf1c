/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's routing table: who is next, and does it lead into a tunnel? */
#pragma once

#include "packet.h"

#ifndef AF_INET
#define AF_INET  2
#define AF_INET6 10
#endif

/* Route the packet as if it came in by `ifindex`.
 *
 * Results as the kernel gives them (include/uapi/linux/bpf.h):
 *   SUCCESS       next hop and egress known
 *   NO_NEIGH      egress known, its link address not: also the normal case of a tunnel's device
 *   FRAG_NEEDED   longer than the route's MTU; the egress is *not* reported (tot_len 0 skips this)
 *   NOT_FWDED     ours, broadcast, or without a route; FWD_DISABLED: `ifindex` does not forward
 *   others        blackhole, unreachable, prohibit, light-weight tunnels: the kernel's to answer
 */
static __always_inline int lookup_route(struct packet *packet, struct bpf_fib_lookup *fib,
                                        __u32 ifindex, __u32 bytes)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = ifindex;
	fib->tot_len = bytes;
	if (is_ipv4(packet)) {
		fib->family = AF_INET;
		fib->tos = ip4(packet)->tos;
		fib->l4_protocol = ip4(packet)->protocol;
		fib->ipv4_src = ip4(packet)->saddr;
		fib->ipv4_dst = ip4(packet)->daddr;
	} else {
		fib->family = AF_INET6;
		fib->flowinfo = *(__be32 *)packet->ip & bpf_htonl(0x0fffffff);
		fib->l4_protocol = ip6(packet)->nexthdr;
		__builtin_memcpy(fib->ipv6_src, &ip6(packet)->saddr, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, &ip6(packet)->daddr, sizeof(fib->ipv6_dst));
	}
	return bpf_fib_lookup(packet->ctx, fib, sizeof(*fib), 0);
}

/* Is the egress of a look-up known? Only then fib->ifindex is it (else it still is the ingress). */
static __always_inline int is_egress_known(int result)
{
	return result == BPF_FIB_LKUP_RET_SUCCESS || result == BPF_FIB_LKUP_RET_NO_NEIGH;
}

/* The next hop that a look-up has found: the gateway, or the destination where there is none. */
static __always_inline struct next_hop found_next_hop(const struct bpf_fib_lookup *fib)
{
	struct next_hop hop = {.ifindex = fib->ifindex};

	if (fib->family == AF_INET)
		hop.address = mapped_ipv4(fib->ipv4_dst);
	else
		__builtin_memcpy(&hop.address, fib->ipv6_dst, sizeof(hop.address));
	return hop;
}

/* The tunnel that the egress of a look-up stands for, or 0. */
static __always_inline struct tunnel *lookup_egress_tunnel(const struct bpf_fib_lookup *fib)
{
	struct device *device = lookup_device(fib->ifindex);
	__u32 slot, *found;

	if (!device || device->role != DEVICE_TUNNEL)
		return 0;
	slot = device->slot;
	if (device->is_shared) {
		struct next_hop hop = found_next_hop(fib);

		found = map_lookup(MAP_NEXT_HOPS, &hop);
		if (!found)
			return 0;
		slot = *found;
	}
	return lookup_tunnel(slot);
}

/* XDP_REDIRECT if frames may leave through this device, else XDP_ABORTED. The kernel remembers the
 * last target, so asking early costs nothing.
 */
static __always_inline int redirect_to(__u32 ifindex)
{
	return bpf_redirect_map(map_ref(MAP_PORTS), ifindex, 0);
}

/* The link header that a frame needs on its way out. */
struct egress {
	__u32 tag_count;
	struct vlan_tag tags[VLAN_TAGS_MAX];
};

/* As redirect_to(), for a device that a look-up has found: a VLAN's frames leave by its trunk. */
static __always_inline int redirect_to_egress(__u32 ifindex, struct egress *egress)
{
	struct device *device;

	egress->tag_count = 0;
	if (redirect_to(ifindex) == XDP_REDIRECT)
		return XDP_REDIRECT;
	device = lookup_device(ifindex);
	if (!device || device->role != DEVICE_PORT || !device->trunk)
		return XDP_ABORTED;
	egress->tag_count = 1 + !!device->tags[1].protocol;
	egress->tags[0] = device->tags[0];
	egress->tags[1] = device->tags[1];
	return redirect_to(device->trunk);
}

static __always_inline __u32 link_bytes(const struct egress *egress)
{
	return sizeof(struct ethhdr) + TAG_BYTES * egress->tag_count;
}

/* Write the link header at the start of the frame; returns 0 where the frame ends before it. */
static __always_inline int fill_link(const struct packet *packet, const struct egress *egress,
                                     const __u8 *destination, const __u8 *source, __be16 protocol)
{
	struct ethhdr *eth = frame_start(packet);
	__be16 *words;

	if ((void *)(eth + 1) > frame_end(packet))
		return 0;
	__builtin_memcpy(eth->h_dest, destination, ETH_ALEN);
	__builtin_memcpy(eth->h_source, source, ETH_ALEN);
	if (!egress->tag_count) {
		eth->h_proto = protocol;
		return 1;
	}
	words = &eth->h_proto;
	if ((void *)(words + 5) > frame_end(packet))
		return 0;
	words[0] = egress->tags[0].protocol;
	words[1] = egress->tags[0].id;
	if (egress->tag_count == 1) {
		words[2] = protocol;
		return 1;
	}
	words[2] = egress->tags[1].protocol;
	words[3] = egress->tags[1].id;
	words[4] = protocol;
	return 1;
}
