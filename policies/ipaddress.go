package policies

import (
	"fmt"
	"net/netip"
	"slices"
)

// ipProblem says why an address is fit for no certificate.
func ipProblem(a netip.Addr) (message, hint string) {
	switch {
	case !a.IsValid() || a.Zone() != "":
		return "an address is not an IP address", ""
	case a.Is4In6():
		return fmt.Sprintf("%s is an IPv4 address dressed as IPv6", a), "write it as IPv4, in 4 octets"
	case compatible.Contains(a) && !a.IsUnspecified() && !a.IsLoopback():
		return fmt.Sprintf("%s is an IPv4 address in an outdated form of IPv6 (RFC 4291, section 2.5.5.1)", a), "write it as IPv4, in 4 octets"
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Sprintf("%s is not the address of a host", a), "write the address of one host"
	}
	return "", ""
}

// compatible holds the IPv4-compatible addresses of IPv6, and its first two addresses, which are none.
var compatible = netip.MustParsePrefix("::/96")

// reservedAddress tells whether an address is not globally reachable, or set apart.
func reservedAddress(a netip.Addr) bool {
	if a.Is6() && !globalUnicast.Contains(a) {
		return true
	}
	return slices.ContainsFunc(specialPurpose, func(p netip.Prefix) bool { return p.Contains(a) })
}

// globalUnicast is all that IANA gives out of IPv6 for the Internet at large.
var globalUnicast = netip.MustParsePrefix("2000::/3")

// specialPurpose are the IANA IPv4 and IPv6 special-purpose address registries (RFC 6890 and its successors), whole blocks of them
// even where single addresses are reachable, and multicast and the reserved block of IPv4.
var specialPurpose = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.31.196.0/24"),
	netip.MustParsePrefix("192.52.193.0/24"), netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("192.175.48.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("2620:4f:8000::/48"), netip.MustParsePrefix("3fff::/20"),
}
