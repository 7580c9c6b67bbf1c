/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Routing one packet: into a tunnel, out to a LAN, or to the kernel. */
#pragma once

#include "encap.h"

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

/* Nobody may spend the last hop, skip an option, or exceed the MTU: the kernel answers instead. */
static __always_inline int is_for_kernel(const struct packet *packet, __u32 mtu, __u32 *reason)
{
	if (packet_ttl(packet) <= 1)
		*reason = PASS_TTL_EXPIRED;
	else if (packet->is_slow)
		*reason = PASS_IP_OPTIONS;
	else if (packet->bytes > mtu)
		*reason = PASS_TOO_BIG;
	else
		return 0;
	return 1;
}

static __always_inline int forward_into_tunnel(struct packet *packet, struct tunnel *tunnel,
                                               __u32 id)
{
	__u32 reason;

	if (is_for_kernel(packet, tunnel->mtu, &reason))
		return hand_over(packet, reason);
	decrement_ttl(packet);
	return encap(packet, tunnel, id);
}

/* A decapsulated packet whose next hop is known goes out of a LAN port. */
static __always_inline int forward_to_port(struct packet *packet, struct bpf_fib_lookup *fib)
{
	__be16 protocol = packet_ethertype(packet);
	struct ethhdr *eth;

	if (redirect_to(fib->ifindex) != XDP_REDIRECT)
		return deliver_to_device(packet, PASS_EGRESS_UNATTACHED);
	decrement_ttl(packet);
	if (resize_frame(packet, sizeof(*eth)))
		return drop(DROP_NO_HEADROOM);
	eth = frame_start(packet);
	if ((void *)(eth + 1) > frame_end(packet))
		return drop(DROP_NO_HEADROOM);
	fill_ethernet(eth, fib->dmac, fib->smac, protocol);
	count_received(packet->from_id, packet->bytes);
	return XDP_REDIRECT;
}

/* A packet that came out of a tunnel. The kernel does not say whether it does not forward because
 * the destination is its own or because it knows no route: both are for it to deliver or answer.
 */
static __always_inline int forward_decapsulated(struct packet *packet)
{
	struct bpf_fib_lookup fib;
	struct tunnel *tunnel;
	__u32 reason, id;
	int result;

	clamp_mss(packet, packet->from);
	if (is_multicast(packet))
		return deliver_to_device(packet, PASS_MULTICAST);
	if (is_link_local(packet))
		return deliver_to_device(packet, PASS_FOR_THIS_HOST);
	result = lookup_route(packet, &fib, packet->from->device_ifindex, packet->bytes);
	if (result == BPF_FIB_LKUP_RET_NOT_FWDED || result == BPF_FIB_LKUP_RET_FWD_DISABLED)
		return deliver_to_device(packet, PASS_FOR_THIS_HOST);
	if (is_for_kernel(packet, ~0U, &reason))
		return deliver_to_device(packet, reason);
	if (is_egress_known(result)) {
		tunnel = lookup_egress_tunnel(fib.ifindex, &id);
		/* Two gateways would play it back and forth until its hops are spent. */
		if (tunnel == packet->from)
			return drop(DROP_LOOPED_BACK);
		if (tunnel)
			return forward_into_tunnel(packet, tunnel, id);
	}
	switch (result) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return forward_to_port(packet, &fib);
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return deliver_to_device(packet, PASS_NO_NEIGHBOUR);
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return deliver_to_device(packet, PASS_TOO_BIG);
	default:
		return deliver_to_device(packet, PASS_NO_ROUTE);
	}
}

/* A packet from a LAN: ours only if the kernel routes it to a tunnel's device. The MTU is the
 * tunnel's to judge: a look-up that minds the route's would hide the egress.
 */
static __always_inline int forward_from_port(struct packet *packet, const struct ethhdr *eth)
{
	struct device *port;
	struct bpf_fib_lookup fib;
	struct tunnel *tunnel;
	__u32 ingress = packet->ctx->ingress_ifindex;
	__u32 id;

	if (is_multicast(packet) || is_link_local(packet))
		return pass_unrelated();
	if (!is_egress_known(lookup_route(packet, &fib, ingress, 0)))
		return pass_unrelated();
	tunnel = lookup_egress_tunnel(fib.ifindex, &id);
	if (!tunnel)
		return pass_unrelated();
	/* A promiscuous port sees frames for others; only what is sent to us is ours to route. */
	port = lookup_device(ingress);
	if (!port || !is_own_mac(eth->h_dest, port->mac))
		return pass_unrelated();
	if (is_ipv4(packet) ? is_martian_source4(ip4(packet)->saddr)
	                    : is_martian_source6(ip6(packet)))
		return pass_unrelated();
	return forward_into_tunnel(packet, tunnel, id);
}
