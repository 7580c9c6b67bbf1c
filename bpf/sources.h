/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Which inner sources a tunnel may bring: spoofed ones end here. */
#pragma once

#include "packet.h"

/* IPv6's link-local sources are the remote itself: neighbours and routing protocols need them. */
static __always_inline int is_allowed_source(const struct packet *packet)
{
	struct source_prefix source = {
		.prefix_bits = 8 * (sizeof(source) - sizeof(source.prefix_bits)),
		.tunnel = bpf_htonl(packet->from->id),
	};

	if (!(packet->from->flags & TUNNEL_SOURCES))
		return 1;
	if (is_ipv4(packet)) {
		source.family = bpf_htonl(4);
		source.address[0] = ip4(packet)->saddr;
	} else {
		if (is_link_local6(&ip6(packet)->saddr))
			return 1;
		source.family = bpf_htonl(6);
		__builtin_memcpy(source.address, &ip6(packet)->saddr, sizeof(source.address));
	}
	return map_lookup(MAP_SOURCES, &source) != 0;
}
