/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The contract between the C programs and Python: everything that crosses, and nothing else.
 *
 * gre_xdp/abi.py mirrors it; tests/contract proves sizes, offsets and numbers equal. Structures
 * have no holes: padding is named, and zero in keys. A change of layout is a new PIN_VERSION there.
 *
 * Programs of another version find their way by what never changes (gre_xdp/migration.py): a tunnel
 * begins with its name, its id follows (in layout 2 the id was the slot); a device begins with its
 * role and its slot; the value of MAP_NEXT_HOPS is a slot.
 */
#pragma once

#include <uapi/linux/types.h>

#define DEVICE_NAME_BYTES 16 /* IFNAMSIZ */
#define MAC_BYTES         6
#define VLAN_TAGS_MAX     2
#define TUNNELS_MAX       32768
#define SLOTS_MAX         65536
#define NEIGHBOURS_MAX    16384

/* Maps by their index in the descriptor array that the loader gives to BPF_PROG_LOAD. */
enum map_index {
	MAP_SETTINGS,
	MAP_ENDPOINTS,
	MAP_TUNNELS,
	MAP_DEVICES,
	MAP_PORTS,
	MAP_TUNNEL_COUNTERS,
	MAP_REASON_COUNTERS,
	MAP_SCRATCH,
	MAP_SEQUENCES,
	MAP_SOURCES,
	MAP_VLANS,
	MAP_ANSWERS,
	MAP_NEXT_HOPS,
	MAP_NEIGHBOURS,
	MAP_NOTES,
	MAP_COUNT,
};

/* MAP_SETTINGS: one entry. */
struct settings {
	__u32 unknown_gre_pass; /* 1: GRE to a local of ours that no tunnel takes goes to the kernel
	                         */
};

/* An address of either family; IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2). */
struct ip_address {
	__be32 word[4];
};

/* What an entry of MAP_ENDPOINTS stands for. The last two answer "why did nothing match?". */
enum endpoint_kind {
	ENDPOINT_KEYLESS = 0, /* local, remote */
	ENDPOINT_KEYED = 1,   /* local, remote, key */
	ENDPOINT_PAIR = 2,    /* local, remote of any tunnel, whatever its key */
	ENDPOINT_LOCAL = 3,   /* local of any tunnel */
};

/* Key of MAP_ENDPOINTS; the value is a tunnel's slot in MAP_TUNNELS (kinds 0 and 1), else 0. */
struct endpoint {
	struct ip_address local;  /* outer destination of what we receive */
	struct ip_address remote; /* outer source; 0 for ENDPOINT_LOCAL */
	__be32 key;               /* 0 unless ENDPOINT_KEYED */
	__u32 kind;               /* enum endpoint_kind */
};

enum tunnel_flags {
	TUNNEL_OKEY = 1 << 0,        /* send a key */
	TUNNEL_PMTUDISC = 1 << 1,    /* outer DF always set; else inner DF is copied */
	TUNNEL_TTL_INHERIT = 1 << 2, /* outer TTL = inner TTL */
	TUNNEL_TOS_INHERIT = 1 << 3, /* outer DSCP = inner DSCP */
	TUNNEL_IKEY = 1 << 4,        /* expect a key; the data path reads it in MAP_ENDPOINTS */
	TUNNEL_ICSUM = 1 << 5,       /* expect a checksum */
	TUNNEL_OCSUM = 1 << 6,       /* send a checksum */
	TUNNEL_ISEQ = 1 << 7,        /* expect rising sequence numbers */
	TUNNEL_OSEQ = 1 << 8,        /* send sequence numbers */
	TUNNEL_SOURCES = 1 << 9,     /* inner sources must be in MAP_SOURCES */
	TUNNEL_IPV6 = 1 << 10,       /* the outer header is IPv6 */
	TUNNEL_ETHERNET = 1 << 11,   /* carries Ethernet frames, not IP and MPLS packets */
};

/* MAP_TUNNELS: by slot. What is in a slot does not change while packets may meet it: a changed
 * tunnel gets another slot, and whoever pointed to the old one then points to the new one, so that
 * each packet meets one version of it. A slot that nothing points to is unused.
 */
struct tunnel {
	char name[DEVICE_NAME_BYTES];
	__u32 id; /* the same in all its slots: index of its counters and sequence numbers */
	struct ip_address local;
	struct ip_address remote;
	__be32 ikey;
	__be32 okey;
	__u32 flags;          /* enum tunnel_flags */
	__u32 device_ifindex; /* the end that users see */
	__u32 inner_ifindex;  /* the end whose program encapsulates */
	__u32 mtu;        /* largest inner packet sent, bytes from its IP header or label stack */
	__u32 device_mtu; /* largest that the device takes: more, while the path is narrower */
	__u8 device_mac[MAC_BYTES];
	__u8 ttl;
	__u8 tos;
	__u16 mss_ipv4; /* largest TCP MSS let through, in bytes; 0: never touched */
	__u16 mss_ipv6;
};

/* What a device is to the data path. */
enum device_role {
	DEVICE_PORT = 1,   /* an interface of the configuration */
	DEVICE_TUNNEL = 2, /* a tunnel's device: what routes point to */
	DEVICE_INNER = 3,  /* the other end of a tunnel's device */
};

struct vlan_tag {
	__be16 protocol; /* 0x8100 or 0x88a8; 0: no tag */
	__be16 id;       /* 1..4094 */
};

/* MAP_DEVICES: ifindex -> what that device is. */
struct device {
	__u32 role;  /* enum device_role */
	__u32 slot;  /* DEVICE_TUNNEL, DEVICE_INNER unless shared: in MAP_TUNNELS */
	__u32 trunk; /* DEVICE_PORT that is a VLAN: where its frames leave, tagged; else 0 */
	__u8 mac[MAC_BYTES]; /* DEVICE_PORT: frames to another address are not ours */
	__u8 has_vlans;      /* DEVICE_PORT: VLANs on it are ports, too, so tags tell them apart */
	__u8 is_shared;      /* DEVICE_TUNNEL, DEVICE_INNER: the next hop selects the tunnel */
	struct vlan_tag tags[VLAN_TAGS_MAX]; /* with trunk; as on the wire, the outer one first */
};

/* Key of MAP_VLANS; the value is the ifindex of the VLAN's own device, a DEVICE_PORT. */
struct vlan {
	__u32 trunk;
	struct vlan_tag tags[VLAN_TAGS_MAX];
};

/* Key of MAP_NEXT_HOPS, where the value is the slot of the tunnel that a shared device's next hop
 * selects; and of MAP_NEIGHBOURS, where it is when a frame was last sent there, in ns since boot.
 */
struct next_hop {
	__u32 ifindex;
	struct ip_address address;
};

/* MAP_NOTES: per CPU, by a hash of the neighbour: until when its use need not be noted, in ns. */
#define NOTE_BUCKETS 1024

/* MAP_TUNNEL_COUNTERS: per CPU, by tunnel id. Bytes count from what GRE carries: the inner IP
 * header, label stack or MAC header.
 */
struct tunnel_counters {
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 tx_packets;
	__u64 tx_bytes;
};

/* MAP_REASON_COUNTERS: per CPU, a __u64 by outcome (enum reason); every frame is in exactly one.
 * MAP_PORTS: devmap hash by ifindex.
 */

/* MAP_ANSWERS: per CPU, by a hash of the sender: until when its answers are paid for, in ns. */
#define ANSWER_BUCKETS 128

#define SCRATCH_BLOCK_BYTES 512

/* MAP_SCRATCH: per CPU, one entry; working memory of one frame. */
struct scratch {
	__u32 offset;                        /* of the next octet to sum, in the frame */
	__u32 bytes;                         /* still to sum */
	__u8 block[SCRATCH_BLOCK_BYTES + 4]; /* a word to spare: the verifier rounds up */
};

#define SEQUENCE_SEEN (1ULL << 32)

/* MAP_SEQUENCES: by tunnel id, shared by all CPUs and changed by atomic operations alone. */
struct sequences {
	__u64 sent;     /* how many were sent: its low 32 bits are the next number */
	__u64 received; /* SEQUENCE_SEEN | last accepted number; 0: none yet */
};

/* Key of MAP_SOURCES, a longest-prefix match; the value is one octet without meaning. */
struct source_prefix {
	__u32 prefix_bits; /* SOURCE_SCOPE_BITS and the prefix's own length */
	__be32 tunnel;     /* its id */
	__be32 family;     /* 4 or 6 */
	__be32 address[4]; /* an IPv4 address is in the first word */
};

#define SOURCE_SCOPE_BITS 64
