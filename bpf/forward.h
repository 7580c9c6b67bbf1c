/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Routing one packet: into a tunnel, out to a LAN, or to the kernel. First it is decided, then
 * done: each way exists once in the program.
 */
#pragma once

#include "answers.h"
#include "encap.h"
#include "ingress.h"
#include "neighbours.h"

/* What the kernel would answer or deliver itself whatever the routing table says. */
static __always_inline int is_multicast(const struct packet *packet)
{
	return is_ipv4(packet) ? is_multicast4(ip4(packet)->daddr)
	                       : is_multicast6(&ip6(packet)->daddr);
}

static __always_inline int is_link_local(const struct packet *packet)
{
	return !is_ipv4(packet) &&
	       (is_link_local6(&ip6(packet)->daddr) || is_link_local6(&ip6(packet)->saddr));
}

#define IPV6_MIN_MTU 1280

enum way {
	WAY_UNRELATED, /* none of our business */
	WAY_KERNEL,    /* ours to hand over, for a pass reason */
	WAY_TUNNEL,
	WAY_PORT,
	WAY_BACK, /* into the tunnel that it came out of */
};

struct route {
	struct bpf_fib_lookup fib;
	struct tunnel *tunnel; /* WAY_TUNNEL */
	__u32 reason;          /* WAY_KERNEL */
};

static __always_inline enum way to_kernel(struct route *route, __u32 reason)
{
	route->reason = reason;
	return WAY_KERNEL;
}

/* Nobody may spend the last hop or skip an option: the kernel answers instead. */
static __always_inline int is_for_kernel(const struct packet *packet, __u32 *reason)
{
	if (packet_ttl(packet) <= 1)
		*reason = PASS_TTL_EXPIRED;
	else if (packet->is_slow)
		*reason = PASS_IP_OPTIONS;
	else
		return 0;
	return 1;
}

/* The remote asks whether the tunnel carries IPv6 (RFC 7676 section 3.2): a packet to itself, which
 * can be sent back once and no more.
 */
static __always_inline int is_probe(const struct packet *packet)
{
	struct ip_address source, destination;

	if (!is_ipv6(packet) || ip6(packet)->hop_limit > 2)
		return 0;
	source = packet_source(packet);
	destination = packet_destination(packet);
	return is_same_address(&source, &destination);
}

/* A packet that came out of a tunnel. The kernel does not say whether it does not forward because
 * the destination is its own or because it knows no route: both are for it to deliver or answer.
 */
static __always_inline enum way route_decapsulated(struct packet *packet, struct route *route)
{
	int result;

	/* The look-up routes neither labels nor frames. */
	if (packet->protocol == bpf_htons(ETH_P_MPLS_UC))
		return to_kernel(route, PASS_MPLS);
	if (packet->protocol == bpf_htons(ETH_P_TEB))
		return to_kernel(route, PASS_ETHERNET);
	if (is_multicast(packet))
		return to_kernel(route, PASS_MULTICAST);
	if (is_link_local(packet))
		return to_kernel(route, PASS_FOR_THIS_HOST);
	result = lookup_route(packet, &route->fib, packet->from->device_ifindex, packet->bytes);
	if (result == BPF_FIB_LKUP_RET_NOT_FWDED || result == BPF_FIB_LKUP_RET_FWD_DISABLED)
		return to_kernel(route, PASS_FOR_THIS_HOST);
	if (is_for_kernel(packet, &route->reason))
		return WAY_KERNEL;
	if (is_egress_known(result)) {
		route->tunnel = lookup_egress_tunnel(&route->fib);
		if (route->tunnel) {
			/* Two gateways would play it back and forth until its hops are spent. */
			int is_back = route->tunnel->id == packet->from->id && !is_probe(packet);

			return is_back ? WAY_BACK : WAY_TUNNEL;
		}
	}
	switch (result) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return WAY_PORT;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return to_kernel(route, PASS_NO_NEIGHBOUR);
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return to_kernel(route, PASS_TOO_BIG);
	default:
		return to_kernel(route, PASS_NO_ROUTE);
	}
}

/* A packet from a LAN: ours only if the kernel routes it to a tunnel's device. The MTU is the
 * tunnel's to judge: a look-up that minds the route's would hide the egress.
 */
static __always_inline enum way route_from_port(struct packet *packet,
                                                const struct ingress *ingress, struct route *route)
{
	if (ingress->is_foreign || is_multicast(packet) || is_link_local(packet))
		return WAY_UNRELATED;
	if (!is_egress_known(lookup_route(packet, &route->fib, ingress->ifindex, 0)))
		return WAY_UNRELATED;
	route->tunnel = lookup_egress_tunnel(&route->fib);
	if (!route->tunnel || !is_for_us(packet, ingress))
		return WAY_UNRELATED;
	if (is_ipv4(packet) ? is_martian_source4(ip4(packet)->saddr)
	                    : is_martian_source6(ip6(packet)))
		return WAY_UNRELATED;
	carry_ip(packet);
	return is_for_kernel(packet, &route->reason) ? WAY_KERNEL : WAY_TUNNEL;
}

/* No IPv6 sender goes below 1,280 bytes (RFC 8200 section 5): if the path has become narrower than
 * that, they are sent in outer fragments.
 */
static __always_inline __u32 longest_carried(const struct packet *packet,
                                             const struct tunnel *tunnel)
{
	if (is_ipv6(packet) && tunnel->mtu < IPV6_MIN_MTU && tunnel->device_mtu >= IPV6_MIN_MTU)
		return IPV6_MIN_MTU;
	return tunnel->mtu;
}

/* What a tunnel does not take the kernel answers, fragments or makes a frame of. */
static __always_inline int is_for_tunnel(const struct packet *packet, struct route *route)
{
	if (packet->bytes > longest_carried(packet, route->tunnel))
		route->reason = PASS_TOO_BIG;
	else if (route->tunnel->flags & TUNNEL_ETHERNET)
		route->reason = PASS_ETHERNET;
	else
		return 1;
	return 0;
}

/* A decapsulated packet goes out of a LAN port, to the next hop. */
static __always_inline int send_to_port(struct packet *packet, const struct egress *egress,
                                        const struct bpf_fib_lookup *fib)
{
	decrement_ttl(packet);
	if (resize_frame(packet, link_bytes(egress)))
		return drop(DROP_NO_HEADROOM);
	if (!fill_link(packet, egress, fib->dmac, fib->smac, packet->protocol))
		return drop(DROP_NO_HEADROOM);
	count_received(packet->from, packet->carried_bytes);
	note_neighbour(fib);
	return redirect(FORWARD_DECAP);
}

static __always_inline int forward(struct packet *packet, enum way way, struct route *route)
{
	struct egress egress;

	if (way == WAY_UNRELATED)
		return pass_unrelated();
	if (way == WAY_BACK)
		return drop(DROP_LOOPED_BACK);
	if (packet->is_decapsulated)
		clamp_mss(packet, packet->from);
	if (way == WAY_TUNNEL && is_for_tunnel(packet, route)) {
		decrement_ttl(packet);
		return encap(packet, route->tunnel);
	}
	if (way == WAY_PORT) {
		if (redirect_to_egress(route->fib.ifindex, &egress) == XDP_REDIRECT)
			return send_to_port(packet, &egress, &route->fib);
		route->reason = PASS_EGRESS_UNATTACHED;
	}
	if (route->reason == PASS_TOO_BIG && is_answered(packet) && !may_answer(packet))
		return drop(DROP_TOO_BIG_UNANSWERED);
	return hand_over(packet, route->reason);
}
