/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* To the kernel: what XDP should not do itself goes there unencapsulated, with a pass reason. */
#pragma once

#include "fib.h"

/* A veth loses, without telling the sender, what is longer than its peer's MTU, an Ethernet header
 * and one tag (is_skb_forwardable in net/core/dev.c).
 */
static __always_inline __u32 device_frame_bytes_max(const struct tunnel *tunnel)
{
	if (tunnel->flags & TUNNEL_ETHERNET)
		return tunnel->device_mtu + sizeof(struct ethhdr) + TAG_BYTES;
	return tunnel->device_mtu;
}

/* Decapsulate onto the tunnel's own device: the frame enters by its inner end, so that it arrives
 * on the device like on any interface (tcpdump, nftables, bridges, sockets and routing see it).
 */
static __always_inline int deliver_to_device(struct packet *packet, __u32 reason)
{
	struct tunnel *tunnel = packet->from;
	struct egress untagged = {};
	int is_frame = tunnel->flags & TUNNEL_ETHERNET;

	if (packet->carried_bytes > device_frame_bytes_max(tunnel))
		return drop(DROP_TOO_BIG);
	if (redirect_to(tunnel->inner_ifindex) != XDP_REDIRECT)
		return drop(DROP_NO_TUNNEL);
	if (resize_frame(packet, is_frame ? 0 : link_bytes(&untagged)))
		return drop(DROP_NO_HEADROOM);
	if (!is_frame &&
	    !fill_link(packet, &untagged, tunnel->device_mac, tunnel->device_mac, packet->protocol))
		return drop(DROP_NO_HEADROOM);
	count_received(tunnel, packet->carried_bytes);
	return redirect(reason);
}

/* Let the kernel decide: on the tunnel's device for what came out of one, else where it came in. */
static __always_inline int hand_over(struct packet *packet, __u32 reason)
{
	if (packet->is_decapsulated)
		return deliver_to_device(packet, reason);
	return pass(reason);
}
