/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What becomes of a frame: numbered, never renumbered, part of the contract.
 *
 * 1..63 are drops, 64..127 are passes (handed to the kernel); gre_xdp/reasons.py says why each
 * happens and what to do. From 128 on is the fast path. tests/contract proves the lists equal.
 */
#pragma once

#define REASON_COUNT         192
#define REASON_FIRST_PASS    64
#define REASON_FIRST_FORWARD 128

#define FOR_EACH_DROP_REASON(X)     \
	X(1, UNKNOWN_TUNNEL)        \
	X(2, KEY_MISMATCH)          \
	X(3, GRE_VERSION)           \
	X(4, GRE_ROUTING_BIT)       \
	X(5, GRE_RESERVED_BITS)     \
	X(6, GRE_TRUNCATED)         \
	X(7, GRE_CHECKSUM)          \
	X(8, GRE_CHECKSUM_MISSING)  \
	X(9, GRE_SEQUENCE)          \
	X(10, GRE_SEQUENCE_MISSING) \
	X(11, UNKNOWN_PROTOCOL)     \
	X(12, INNER_MALFORMED)      \
	X(13, INNER_SOURCE)         \
	X(14, ECN_CE_NOT_ECT)       \
	X(15, NESTED_TUNNEL)        \
	X(16, LOOPED_BACK)          \
	X(17, OUTER_FRAGMENT)       \
	X(18, NO_HEADROOM)          \
	X(19, NO_NEIGHBOUR)         \
	X(20, NO_ROUTE)             \
	X(21, TOO_BIG)              \
	X(22, EGRESS_UNATTACHED)    \
	X(23, NO_TUNNEL)            \
	X(24, SPLIT_HEADERS)        \
	X(25, TOO_BIG_UNANSWERED)   \
	X(26, NEXT_HOP_UNKNOWN)

#define FOR_EACH_PASS_REASON(X)  \
	X(64, TOO_BIG)           \
	X(65, TTL_EXPIRED)       \
	X(66, IP_OPTIONS)        \
	X(67, FOR_THIS_HOST)     \
	X(68, MULTICAST)         \
	X(69, NO_NEIGHBOUR)      \
	X(70, NO_ROUTE)          \
	X(71, EGRESS_UNATTACHED) \
	X(72, UNKNOWN_TUNNEL)    \
	X(73, KEY_MISMATCH)      \
	X(74, GRE_VERSION)       \
	X(75, MPLS)              \
	X(76, ETHERNET)

#define FOR_EACH_FORWARD(X) \
	X(128, DECAP)       \
	X(129, ENCAP)       \
	X(130, RELAY) /* decap and encap */

enum reason {
	REASON_NONE = 0, /* unrelated traffic, passed */
#define X(code, name) DROP_##name = code,
	FOR_EACH_DROP_REASON(X)
#undef X
#define X(code, name) PASS_##name = code,
		FOR_EACH_PASS_REASON(X)
#undef X
#define X(code, name) FORWARD_##name = code,
			FOR_EACH_FORWARD(X)
#undef X
};
