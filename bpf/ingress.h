/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Where a frame came in, as routing sees it: a VLAN's frames come in by the VLAN's own device. */
#pragma once

#include "packet.h"

struct ingress {
	__u32 ifindex;
	int is_foreign; /* tagged, and no interface of the configuration has these tags */
};

/* A single tag with ID 0 only carries a priority (IEEE 802.1Q): the frame is as good as untagged.
 */
static __always_inline int is_vlan(const struct link *link)
{
	return link->tag_count == 2 || (link->tag_count == 1 && link->tags[0].id);
}

static __always_inline struct ingress resolve_ingress(const struct xdp_md *ctx,
                                                      const struct link *link)
{
	struct ingress ingress = {.ifindex = ctx->ingress_ifindex};

	if (is_vlan(link)) {
		struct vlan vlan = {.trunk = ingress.ifindex};
		__u32 *found;

		vlan.tags[0] = link->tags[0];
		vlan.tags[1] = link->tags[1];
		found = map_lookup(MAP_VLANS, &vlan);
		if (found)
			ingress.ifindex = *found;
		else
			ingress.is_foreign = 1;
	}
	return ingress;
}

/* Is the frame sent to us, by an interface of the configuration? A promiscuous port sees frames for
 * others, and a trunk those of VLANs that are none of our business. Where no VLAN is configured on
 * a port, tags mean nothing to us; most drivers hide them from XDP anyway.
 */
static __always_inline int is_for_us(const struct packet *packet, const struct ingress *ingress)
{
	struct device *port = lookup_device(ingress->ifindex);
	struct ethhdr *eth = frame_start(packet);

	return port && port->role == DEVICE_PORT && !(ingress->is_foreign && port->has_vlans) &&
	       (void *)(eth + 1) <= frame_end(packet) && is_own_mac(eth->h_dest, port->mac);
}
