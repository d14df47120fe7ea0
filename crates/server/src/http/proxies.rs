//! Whose request it is that a proxy passes on: trusted proxies, `X-Forwarded-For`, and the header of the
//! PROXY protocol (version 2).
//!
//! Pure: addresses, headers and bytes in, an address out. Invariants: 1. Nothing that an address says
//! which is not trusted is believed. 2. What cannot be read ends the way back: the client is then the last
//! address that was told by somebody who is trusted.

use super::Headers;
use std::net::{IpAddr, SocketAddr};

/// Addresses that are believed about whose requests they pass on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

impl TrustedProxies {
    /// Addresses (`10.0.0.1`, `::1`) and networks (`10.0.0.0/8`, `2001:db8::/32`).
    ///
    /// # Errors
    /// The first that is none; a network with bits behind its prefix is none.
    pub fn parse(texts: &[String]) -> Result<Self, &str> {
        let network = |text| Network::parse(text).ok_or(text);
        texts.iter().map(String::as_str).map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what this address says of its clients is believed.
    #[must_use]
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.has(ip))
    }

    /// Whose request it is that `peer` sent: itself, or, if it is trusted, the rightmost address of
    /// `X-Forwarded-For` that is not. Where all of them are trusted it is the leftmost.
    #[must_use]
    pub fn client(&self, peer: SocketAddr, headers: &Headers) -> SocketAddr {
        if !self.trusts(peer.ip()) {
            return peer;
        }
        let hops: Vec<&str> = headers.tokens("x-forwarded-for").collect();
        let mut client = peer;
        for hop in hops.into_iter().rev() {
            let Some(told) = address(hop).filter(|_| self.trusts(client.ip())) else { break };
            client = told;
        }
        client
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most: u32 = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => most,
            // `parse` alone would take a sign.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= most)?
            }
            Some(_) => return None,
        };
        let network = match address.to_canonical() {
            // Written as IPv6: its prefix has 96 bits more.
            IpAddr::V4(v4) if address.is_ipv6() => {
                Self { address: v4.into(), prefix_bits: prefix_bits.checked_sub(96)? }
            }
            address => Self { address, prefix_bits },
        };
        let (bits, width) = bits(network.address);
        (first(bits, width, network.prefix_bits) == bits).then_some(network)
    }

    fn has(&self, ip: IpAddr) -> bool {
        let ((own, width), (other, other_width)) = (bits(self.address), bits(ip));
        width == other_width && first(other, width, self.prefix_bits) == own
    }
}

/// An address as a number, and how many bits it has.
fn bits(ip: IpAddr) -> (u128, u32) {
    match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    }
}

/// The first bits of a number of `width` bits, noughts behind them.
fn first(number: u128, width: u32, count: u32) -> u128 {
    let behind = width - count;
    number.checked_shr(behind).and_then(|kept| kept.checked_shl(behind)).unwrap_or(0)
}

/// An element of `X-Forwarded-For`: an address, with or without a port and brackets.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip.to_canonical(), 0)),
        Err(_) => text.parse().ok(),
    }
}

/// How every header of the PROXY protocol, version 2, begins; no HTTP does.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header taken, in bytes; extensions behind the addresses are skipped.
pub const PROXY_HEADER_MAX: usize = 16 + 2_048;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyHeader {
    /// Too few bytes to tell, or the header is not all there.
    Incomplete,
    /// No such header.
    Absent,
    /// A header of so many bytes; the client's address, if it tells one (`LOCAL` and families that are no
    /// IP do not).
    Present(usize, Option<SocketAddr>),
    /// It begins as one and is none.
    Malformed,
}

/// Reads the header at the front of `bytes`.
#[must_use]
pub fn read_proxy_header(bytes: &[u8]) -> ProxyHeader {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return ProxyHeader::Absent;
    }
    let Some(&[command, family, high, low]) = bytes.get(12..16).and_then(<[u8]>::first_chunk)
    else {
        return ProxyHeader::Incomplete;
    };
    let total = 16 + usize::from(u16::from_be_bytes([high, low]));
    if total > PROXY_HEADER_MAX || !matches!(command, 0x20 | 0x21) {
        return ProxyHeader::Malformed;
    }
    let Some(told) = bytes.get(16..total) else { return ProxyHeader::Incomplete };
    // What LOCAL tells is not to be looked at: the proxy asks on its own behalf.
    let client = match (command, family) {
        (0x20, _) | (_, 0x00 | 0x31) => Ok(None),
        (_, 0x11) => source::<4>(told, 8).map(Some).ok_or(()),
        (_, 0x21) => source::<16>(told, 32).map(Some).ok_or(()),
        _ => Err(()),
    };
    client.map_or(ProxyHeader::Malformed, |client| ProxyHeader::Present(total, client))
}

/// The source: an address at the front, its port behind both addresses.
fn source<const BYTES: usize>(told: &[u8], port_at: usize) -> Option<SocketAddr>
where
    IpAddr: From<[u8; BYTES]>,
{
    let ip = IpAddr::from(*told.first_chunk::<BYTES>()?);
    // Both ports must be there.
    let &[high, low, ..] = told.get(port_at..port_at + 4)? else { return None };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn proxies(texts: &[&str]) -> TrustedProxies {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        TrustedProxies::parse(&texts).map_err(str::to_owned).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        let trusted =
            proxies(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1", "::ffff:172.16.0.0/108"]);
        for inside in [
            "10.0.0.0",
            "10.255.255.255",
            "::ffff:10.1.2.3",
            "192.0.2.7",
            "2001:db8:ff::1",
            "::1",
            "172.31.0.1",
        ] {
            assert!(trusted.trusts(ip(inside)), "{inside}");
        }
        for outside in [
            "11.0.0.0",
            "9.255.255.255",
            "192.0.2.6",
            "2001:db9::",
            "::2",
            "127.0.0.1",
            "172.32.0.1",
        ] {
            assert!(!trusted.trusts(ip(outside)), "{outside}");
        }
        let everybody = proxies(&["0.0.0.0/0"]);
        assert!(everybody.trusts(ip("8.8.8.8")) && !everybody.trusts(ip("2001:db8::1")));
        assert!(
            proxies(&["::/0"]).trusts(ip("fe80::1")) && !proxies(&["::/0"]).trusts(ip("8.8.8.8"))
        );
        assert!(!proxies(&[]).trusts(ip("127.0.0.1")));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for wrong in [
            "",
            "x",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10/8",
            "10.0.0.1/8",
            "::1/129",
            "2001:db8::1/32",
            "localhost",
            "10.0.0.1:80",
            "::ffff:10.0.0.0/95",
            " 10.0.0.1",
        ] {
            let texts = ["10.0.0.1".to_owned(), wrong.to_owned()];
            assert_eq!(TrustedProxies::parse(&texts), Err(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_nobody_vouches_for() {
        let trusted = proxies(&["10.0.0.0/8", "::1"]);
        let client = |peer: &str, lines: &[&str]| {
            let mut headers = Headers::default();
            lines.iter().for_each(|line| headers.push("X-Forwarded-For", *line));
            trusted.client(SocketAddr::new(ip(peer), 7), &headers).to_string()
        };
        // Strangers say what they like.
        assert_eq!(client("192.0.2.1", &["198.51.100.9"]), "192.0.2.1:7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1:7");
        assert_eq!(client("10.0.0.1", &["198.51.100.9"]), "198.51.100.9:0");
        assert_eq!(client("::ffff:10.0.0.1", &["2001:db8::9"]), "[2001:db8::9]:0");
        assert_eq!(client("::1", &["198.51.100.9:4711"]), "198.51.100.9:4711");
        assert_eq!(client("::1", &["[2001:db8::9]"]), "[2001:db8::9]:0");
        assert_eq!(client("::1", &["[2001:db8::9]:80"]), "[2001:db8::9]:80");
        // The leftmost is what the client itself has sent.
        assert_eq!(client("10.0.0.1", &["1.2.3.4, 198.51.100.9"]), "198.51.100.9:0");
        assert_eq!(client("10.0.0.1", &["1.2.3.4, 198.51.100.9, 10.0.0.2"]), "198.51.100.9:0");
        assert_eq!(
            client("10.0.0.1", &["1.2.3.4", "198.51.100.9", "10.0.0.2,10.0.0.3"]),
            "198.51.100.9:0"
        );
        assert_eq!(client("10.0.0.1", &["10.0.0.9, 10.0.0.2"]), "10.0.0.9:0");
        // Garbage ends the way back.
        assert_eq!(client("10.0.0.1", &["198.51.100.9, unknown"]), "10.0.0.1:7");
        assert_eq!(client("10.0.0.1", &["198.51.100.9, x, 10.0.0.2"]), "10.0.0.2:0");
        assert_eq!(client("10.0.0.1", &["", " , ,"]), "10.0.0.1:7");
        assert_eq!(client("10.0.0.1", &["1.2.3.4.5", "999.1.1.1"]), "10.0.0.1:7");
    }

    /// A header with this command, family and content.
    fn header(command: u8, family: u8, told: &[u8]) -> Vec<u8> {
        let length = u16::try_from(told.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, told].concat()
    }

    #[test]
    fn a_proxy_header_tells_the_client() {
        let v4 = [198, 51, 100, 9, 10, 0, 0, 1, 0x12, 0x67, 0, 80];
        let whole = header(0x21, 0x11, &v4);
        let client = Some("198.51.100.9:4711".parse().unwrap());
        assert_eq!(read_proxy_header(&whole), ProxyHeader::Present(28, client));
        let behind = [&whole[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(read_proxy_header(&behind), ProxyHeader::Present(28, client));
        for cut in 0..whole.len() {
            assert_eq!(read_proxy_header(&whole[..cut]), ProxyHeader::Incomplete, "{cut}");
        }
        let mut v6 = Ipv6Addr::LOCALHOST.octets().to_vec();
        v6.extend(Ipv6Addr::UNSPECIFIED.octets());
        v6.extend([0, 9, 0, 80, 3, 0, 1, 7]); // an extension behind
        let client = Some("[::1]:9".parse().unwrap());
        assert_eq!(read_proxy_header(&header(0x21, 0x21, &v6)), ProxyHeader::Present(56, client));
        for silent in [
            header(0x20, 0x11, &v4),
            header(0x20, 0, &[]),
            header(0x21, 0, &[7; 9]),
            header(0x21, 0x31, &[0; 216]),
        ] {
            assert_eq!(read_proxy_header(&silent), ProxyHeader::Present(silent.len(), None));
        }
        assert_eq!(read_proxy_header(b"GET / HTTP/1.1\r\n"), ProxyHeader::Absent);
        assert_eq!(read_proxy_header(b"\r\nGET /"), ProxyHeader::Absent);
        assert_eq!(read_proxy_header(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), ProxyHeader::Absent);
        for wrong in [
            header(0x11, 0x11, &v4),
            header(0x22, 0x11, &v4),
            header(0x21, 0x12, &v4),
            header(0x21, 0x41, &v4),
            header(0x21, 0x11, &v4[..11]),
            header(0x21, 0x21, &v4),
            header(0x21, 0x11, &[0; 2_049]),
        ] {
            assert_eq!(read_proxy_header(&wrong), ProxyHeader::Malformed);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_read_beyond_their_end(tail in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = [&SIGNATURE[..], &tail].concat();
            if let ProxyHeader::Present(used, _) = read_proxy_header(&bytes) {
                prop_assert!(used <= bytes.len());
            }
            let text = String::from_utf8_lossy(&tail).into_owned();
            let mut headers = Headers::default();
            headers.push("X-Forwarded-For", text);
            let peer: SocketAddr = (Ipv4Addr::LOCALHOST, 1).into();
            let nobody = TrustedProxies::default();
            prop_assert_eq!(nobody.client(peer, &headers), peer);
        }
    }
}
