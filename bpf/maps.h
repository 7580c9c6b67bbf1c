/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* References to maps. The loader creates and pins them and passes their descriptors by index. */
#pragma once

#include "gre_abi.h"

/* BPF_PSEUDO_MAP_IDX (Linux 5.14): the kernel resolves it through the loader's fd_array. BCC's own
 * tables would be created at every compile, need privilege there, and cannot be a DEVMAP_HASH.
 */
#define MAP_BY_INDEX           5
#define map_ref(index)         ((void *)bpf_pseudo_fd(MAP_BY_INDEX, index))
#define map_lookup(index, key) bpf_map_lookup_elem_((uintptr_t)map_ref(index), key)
#define map_put(index, key, value) \
	bpf_map_update_elem_((uintptr_t)map_ref(index), key, value, BPF_ANY)

static __always_inline struct tunnel *lookup_tunnel(__u32 slot)
{
	return map_lookup(MAP_TUNNELS, &slot);
}

static __always_inline struct device *lookup_device(__u32 ifindex)
{
	return map_lookup(MAP_DEVICES, &ifindex);
}

/* The tunnel's slot, or 0 where nothing matches. */
static __always_inline __u32 *lookup_endpoint(struct endpoint *endpoint)
{
	return map_lookup(MAP_ENDPOINTS, endpoint);
}

/* Do tunnels of ours end at this address? */
static __always_inline int is_local(const struct ip_address *address)
{
	struct endpoint endpoint = {.local = *address, .kind = ENDPOINT_LOCAL};

	return lookup_endpoint(&endpoint) != 0;
}
