/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* To the kernel: what XDP should not do itself goes there unencapsulated, with a pass reason. */
#pragma once

#include "fib.h"

/* Decapsulate onto the tunnel's own device: the frame enters by its inner end, so that it arrives
 * on the device like on any interface (tcpdump, nftables, sockets and routing see it there).
 */
static __always_inline int deliver_to_device(struct packet *packet, __u32 reason)
{
	struct tunnel *tunnel = packet->from;
	__be16 protocol = packet_ethertype(packet);
	struct ethhdr *eth;

	/* A veth loses what is longer than its peer's MTU without telling the sender. */
	if (packet->bytes > tunnel->mtu)
		return drop(DROP_TOO_BIG);
	if (redirect_to(tunnel->inner_ifindex) != XDP_REDIRECT)
		return drop(DROP_NO_TUNNEL);
	if (resize_frame(packet, sizeof(*eth)))
		return drop(DROP_NO_HEADROOM);
	eth = frame_start(packet);
	if ((void *)(eth + 1) > frame_end(packet))
		return drop(DROP_NO_HEADROOM);
	fill_ethernet(eth, tunnel->device_mac, tunnel->device_mac, protocol);
	count_received(packet->from_id, packet->bytes);
	count_reason(reason);
	return XDP_REDIRECT;
}

/* Let the kernel decide: on the tunnel's device for what came out of one, else where it came in. */
static __always_inline int hand_over(struct packet *packet, __u32 reason)
{
	if (packet->from)
		return deliver_to_device(packet, reason);
	return pass(reason);
}
