/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The two entry programs. What a packet meets is told in ARCHITECTURE.md, in the same order. */
#include <uapi/linux/bpf.h>

#include "decap.h"
#include "forward.h"

/* On every interface of the configuration: GRE in, and packets for a tunnel in. */
int gre_xdp_port(struct xdp_md *ctx)
{
	struct packet packet = {.ctx = ctx};
	struct cursor cursor = {ctx, frame_start(&packet), frame_end(&packet)};
	struct ethhdr *eth = parse_ethernet(&cursor);
	struct device *port;
	int verdict;

	if (!eth)
		return pass_unrelated();
	if (!parse_routed(&packet, &cursor, eth->h_proto, cursor_left(&cursor)))
		return pass_unrelated();
	if (!is_ipv4(&packet) || ip4(&packet)->protocol != IPPROTO_GRE)
		return forward_from_port(&packet, eth);
	port = lookup_device(ctx->ingress_ifindex);
	if (!port || !is_own_mac(eth->h_dest, port->mac))
		return pass_unrelated();
	verdict = decap4(&packet, &cursor, ip4(&packet));
	if (verdict != NEXT_STAGE)
		return verdict;
	return forward_decapsulated(&packet);
}

/* On the inner end of a tunnel's device: whatever the host sends into the tunnel. The kernel has
 * routed it: its hop is spent, its options are read, its size is checked.
 */
int gre_xdp_inner(struct xdp_md *ctx)
{
	struct packet packet = {.ctx = ctx};
	struct cursor cursor = {ctx, frame_start(&packet), frame_end(&packet)};
	struct ethhdr *eth = parse_ethernet(&cursor);
	struct device *device = lookup_device(ctx->ingress_ifindex);
	struct tunnel *tunnel;

	if (!eth || !device || device->role != DEVICE_INNER)
		return drop(DROP_NO_TUNNEL);
	tunnel = lookup_tunnel(device->tunnel);
	if (!tunnel || !tunnel->inner_ifindex)
		return drop(DROP_NO_TUNNEL);
	if (!parse_routed(&packet, &cursor, eth->h_proto, cursor_left(&cursor)))
		return drop(DROP_INNER_MALFORMED);
	if (packet.bytes > tunnel->mtu)
		return drop(DROP_TOO_BIG);
	return encap(&packet, tunnel, device->tunnel);
}
