/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The two entry programs. What a packet meets is told in ARCHITECTURE.md, in the same order. */
#include <uapi/linux/bpf.h>

#include "decap.h"
#include "forward.h"

/* On every interface of the configuration: GRE in, and packets for a tunnel in. */
int gre_xdp_port(struct xdp_md *ctx)
{
	struct packet packet = {.ctx = ctx, .frame_bytes = bpf_xdp_get_buff_len(ctx)};
	struct cursor cursor = {.ctx = ctx, .frame_bytes = packet.frame_bytes};
	struct ingress ingress;
	struct outer outer = {};
	struct route route;
	struct link link;
	enum way way;
	int verdict;

	if (!parse_link(&cursor, &link) ||
	    !parse_ip(&packet, &cursor, link.protocol, cursor_left(&cursor)))
		return pass_unrelated();
	ingress = resolve_ingress(ctx, &link);
	if (parse_outer(&packet, &cursor, &outer)) {
		if (!is_for_us(&packet, &ingress))
			return pass_unrelated();
		verdict = decap(&packet, &cursor, &outer);
		if (verdict != NEXT_STAGE)
			return verdict;
		way = route_decapsulated(&packet, &route);
	} else {
		way = route_from_port(&packet, &ingress, &route);
	}
	return forward(&packet, way, &route);
}

/* What came out of a tunnel's device: a frame, or a packet that is the frame's whole content. */
static __always_inline int parse_sent(struct packet *packet, struct cursor *cursor, int is_ethernet)
{
	struct link link;

	if (is_ethernet)
		return carry_frame(packet, cursor, packet->frame_bytes);
	if (!parse_link(cursor, &link) || link.tag_count)
		return 0;
	if (link.protocol == bpf_htons(ETH_P_MPLS_UC))
		return carry_mpls(packet, cursor, cursor_left(cursor));
	if (!parse_ip(packet, cursor, link.protocol, cursor_left(cursor)))
		return 0;
	carry_ip(packet);
	return 1;
}

/* On the inner end of a tunnel's device: whatever the host sends into the tunnel. The kernel has
 * routed it: its hop is spent, its options are read, its size is checked.
 */
int gre_xdp_inner(struct xdp_md *ctx)
{
	struct packet packet = {.ctx = ctx, .frame_bytes = bpf_xdp_get_buff_len(ctx)};
	struct cursor cursor = {.ctx = ctx, .frame_bytes = packet.frame_bytes};
	struct device *device = lookup_device(ctx->ingress_ifindex);
	struct tunnel *tunnel;

	if (!device || device->role != DEVICE_INNER)
		return drop(DROP_NO_TUNNEL);
	/* A shared device carries packets only. */
	tunnel = device->is_shared ? 0 : lookup_tunnel(device->slot);
	if (!device->is_shared && !tunnel)
		return drop(DROP_NO_TUNNEL);
	if (!parse_sent(&packet, &cursor, tunnel && tunnel->flags & TUNNEL_ETHERNET))
		return drop(DROP_INNER_MALFORMED);
	if (!tunnel) {
		struct bpf_fib_lookup fib;

		/* The kernel has chosen a next hop, but the frame does not tell: asked again. */
		if (packet.version &&
		    is_egress_known(lookup_route(&packet, &fib, ctx->ingress_ifindex, 0)))
			tunnel = lookup_egress_tunnel(&fib);
		if (!tunnel || tunnel->inner_ifindex != ctx->ingress_ifindex)
			return drop(DROP_NEXT_HOP_UNKNOWN);
	}
	if (packet.carried_bytes > device_frame_bytes_max(tunnel))
		return drop(DROP_TOO_BIG);
	return encap(&packet, tunnel);
}
