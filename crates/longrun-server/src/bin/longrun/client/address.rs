//! [`Address`]: where a server is, as people write it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use tonic::transport::Uri;

/// `HOST:PORT`, or a URL with `http://` or `https://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// What was said of TLS; nothing for a bare `HOST:PORT`.
    scheme: Option<Scheme>,
    /// `HOST:PORT`.
    authority: String,
}

/// What a URL says of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Address {
    /// What the address says of TLS.
    pub(super) const fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// The URL. A bare address is what `otherwise` says.
    pub(super) fn url(&self, otherwise: Scheme) -> String {
        let scheme = match self.scheme.unwrap_or(otherwise) {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}", self.authority)
    }

    /// Whether what is sent there stays on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.authority.rsplit_once(':').map_or("", |(host, _)| host);
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "must be HOST:PORT, http://HOST:PORT or https://HOST:PORT";
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some(_) => return Err(SHAPE),
            None => (None, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let uri: Uri = format!("http://{rest}").parse().map_err(|_| SHAPE)?;
        let authority = uri.authority().ok_or(SHAPE)?;
        let port = authority.port_u16().or(scheme.map(Scheme::port)).ok_or(SHAPE)?;
        // A name and password would be sent to nobody, and shown in errors.
        if authority.as_str().contains('@') || uri.path() != "/" || uri.query().is_some() || port == 0 {
            return Err(SHAPE);
        }
        Ok(Self { scheme, authority: format!("{}:{port}", authority.host()) })
    }
}

impl Scheme {
    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_from_what_people_write() {
        for (text, url) in [
            ("localhost:50051", "http://localhost:50051"),
            ("http://example.org:8080/", "http://example.org:8080"),
            ("https://example.org", "https://example.org:443"),
            ("http://example.org", "http://example.org:80"),
            ("[::1]:50051", "http://[::1]:50051"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().url(Scheme::Http), url);
        }
        let bare: Address = "localhost:1".parse().unwrap();
        assert_eq!(bare.url(Scheme::Https), "https://localhost:1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "localhost", "localhost:", "localhost:0", "ftp://a:1", "http://a:1/path", "a:1?q", "u:p@a:1"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for (text, loopback) in [
            ("localhost:1", true),
            ("127.0.0.2:1", true),
            ("[::1]:1", true),
            ("10.0.0.1:1", false),
            ("localhost.example.org:1", false),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
