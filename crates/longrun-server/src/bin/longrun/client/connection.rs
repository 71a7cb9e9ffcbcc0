//! [`Connection`]: what every command of the client can be told about the server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use longrun::core::with_causes;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::address::{Address, Scheme};
use super::failure::Failure;
use super::text::duration;

/// The token itself. An environment variable only: what stands on a command line, every user of the machine can read.
const TOKEN: &str = "LONGRUN_TOKEN";
/// No connection takes longer to make.
const CONNECT: Duration = Duration::from_secs(10);

/// How the server is reached, and how its answers are shown.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// Where the server is: HOST:PORT, http://HOST:PORT or https://HOST:PORT.
    #[arg(long, env = "LONGRUN_SERVER", default_value = "127.0.0.1:50051", value_name = "ADDRESS")]
    server: Address,
    /// Certificates in PEM that the server's is checked against, instead of the system's. Makes a bare HOST:PORT https.
    #[arg(long, env = "LONGRUN_CA_CERT", value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// A file with the bearer token. Without it the token is taken from the environment variable LONGRUN_TOKEN.
    #[arg(long, env = "LONGRUN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Send the token to another machine without encryption. Refused otherwise.
    #[arg(long, env = "LONGRUN_TOKEN_IN_CLEAR")]
    token_in_clear: bool,
    /// Time for the whole command, such as 500ms, 30s, 5m or 2h. Without it 30s for each call, and no limit for waiting.
    #[arg(long, env = "LONGRUN_TIMEOUT", value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
    /// Print JSON: operations and snapshots as the API's REST face shows them, lists as arrays.
    #[arg(long, help_heading = "Output")]
    pub(super) json: bool,
}

impl Connection {
    /// For messages.
    pub(super) const fn server(&self) -> &Address {
        &self.server
    }

    /// The endpoint to connect to.
    pub(super) fn endpoint(&self) -> Result<Endpoint, Failure> {
        let connect = self.timeout.map_or(CONNECT, |timeout| timeout.min(CONNECT));
        let endpoint = Endpoint::from_shared(self.url()?)
            .and_then(|endpoint| endpoint.user_agent(concat!("longrun/", env!("CARGO_PKG_VERSION"))))
            .map_err(|error| Failure::Usage(format!("--server: {error}")))?
            .connect_timeout(connect)
            // A peer that is gone is noticed in the middle of a long wait.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        match self.tls()? {
            Some(tls) => endpoint.tls_config(tls).map_err(|error| self.bad_certificates(&error)),
            None => Ok(endpoint),
        }
    }

    fn bad_certificates(&self, error: &tonic::transport::Error) -> Failure {
        let file = self.ca_cert.as_deref().unwrap_or(Path::new("the system's certificates"));
        Failure::Usage(format!("{}: cannot be used: {}", file.display(), with_causes(error)))
    }

    fn url(&self) -> Result<String, Failure> {
        match (self.server.scheme(), &self.ca_cert) {
            (Some(Scheme::Http), Some(_)) => Err(Failure::Usage(
                "--server says http, and --ca-cert is for https; leave one of them out".to_owned(),
            )),
            (_, Some(_)) => Ok(self.server.url(Scheme::Https)),
            (_, None) => Ok(self.server.url(Scheme::Http)),
        }
    }

    fn is_encrypted(&self) -> bool {
        self.ca_cert.is_some() || self.server.scheme() == Some(Scheme::Https)
    }

    fn tls(&self) -> Result<Option<ClientTlsConfig>, Failure> {
        match &self.ca_cert {
            Some(file) => {
                let certificate = Certificate::from_pem(read("--ca-cert", file)?);
                Ok(Some(ClientTlsConfig::new().ca_certificate(certificate)))
            }
            None if self.is_encrypted() => Ok(Some(ClientTlsConfig::new().with_native_roots())),
            None => Ok(None),
        }
    }

    /// The value of the `authorization` header, if there is a token.
    pub(super) fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        let token = match &self.token_file {
            Some(file) => Some(read("--token-file", file)?),
            None => std::env::var(TOKEN).ok(),
        };
        let Some(token) = token.filter(|token| !token.trim().is_empty()) else { return Ok(None) };
        if !self.is_encrypted() && !self.server.is_loopback() && !self.token_in_clear {
            return Err(Failure::Usage(format!(
                "the token is not sent to {} in clear text; use https, or say --token-in-clear",
                self.server
            )));
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| Failure::Usage("the token has characters that no token has".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn read(argument: &str, file: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        Failure::Usage(format!("{argument}: cannot read {}: {error}", file.display()))
    };
    std::fs::read_to_string(file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        connection: Connection,
    }

    fn connection(arguments: &[&str]) -> Connection {
        let arguments = std::iter::once("test").chain(arguments.iter().copied());
        Program::try_parse_from(arguments).unwrap().connection
    }

    #[test]
    fn a_certificate_makes_a_bare_address_https_and_contradicts_http() {
        let url = |arguments: &[&str]| connection(arguments).url();
        assert_eq!(url(&["--server", "a:1"]).unwrap(), "http://a:1");
        assert_eq!(url(&["--server", "a:1", "--ca-cert", "x"]).unwrap(), "https://a:1");
        assert!(url(&["--server", "http://a:1", "--ca-cert", "x"]).is_err());
    }

    #[test]
    fn a_token_goes_in_clear_text_to_this_machine_only_unless_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "secret\n").unwrap();
        let file = file.to_str().unwrap();
        let sent =
            |arguments: &[&str]| connection(&[&["--token-file", file], arguments].concat()).authorization();
        for arguments in [
            &["--server", "127.0.0.1:1"][..],
            &["--server", "https://far.example:1"],
            &["--server", "far.example:1", "--token-in-clear"],
        ] {
            assert_eq!(sent(arguments).unwrap().unwrap(), "Bearer secret");
        }
        let refused = sent(&["--server", "far.example:1"]).unwrap_err().to_string();
        assert!(refused.contains("far.example:1") && !refused.contains("secret"), "{refused}");
    }

    #[test]
    fn a_token_that_is_none_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "sec\u{1}ret").unwrap();
        let error = connection(&["--token-file", file.to_str().unwrap()]).authorization().unwrap_err();
        assert!(!error.to_string().contains("sec"), "{error}");
    }
}
