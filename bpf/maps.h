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

static __always_inline struct tunnel *lookup_tunnel(__u32 id)
{
	return map_lookup(MAP_TUNNELS, &id);
}

static __always_inline struct device *lookup_device(__u32 ifindex)
{
	return map_lookup(MAP_DEVICES, &ifindex);
}

static __always_inline __u32 *lookup_endpoint4(__be32 local, __be32 remote, __be32 key, __u32 kind)
{
	struct endpoint4 endpoint = {
		.local = local,
		.remote = remote,
		.key = key,
		.kind = kind,
	};

	return map_lookup(MAP_ENDPOINTS4, &endpoint);
}

/* Is the outer destination an address where tunnels of ours end? */
static __always_inline int is_local4(__be32 address)
{
	return lookup_endpoint4(address, 0, 0, ENDPOINT_LOCAL) != 0;
}
