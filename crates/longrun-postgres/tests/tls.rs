//! Over the network: the server is known by its certificate, the store by its password, and nobody is told that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use longrun_postgres::testing::PrivateServer;
use longrun_postgres::{OpenError, PostgresOptions, PostgresStore};
use longrun_store::Store;
use longrun_store::conformance::sample::{Draft, operation_id};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

mod common;

const PASSWORD: &str = "correct-horse-9f3a";

/// A server that takes connections with a password over the network, with TLS and without.
struct Server {
    server: PrivateServer,
    port: u16,
    root: String,
}

/// A root, and what it signs for localhost: certificate and key.
fn certificates() -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (root, own.pem(), key.serialize_pem())
}

/// A file that the server may read.
fn put(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    let owner = fs::metadata(folder).unwrap();
    chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Server {
    async fn start() -> Option<Self> {
        let mut tries = 0;
        let (server, port) = loop {
            tries += 1;
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let port_setting = format!("port={port}");
            let settings = ["fsync=off", "full_page_writes=off", "listen_addresses=127.0.0.1", &port_setting];
            match PrivateServer::start_with(&settings) {
                Ok(server) => break (server, port),
                // Somebody else has taken the port meanwhile.
                Err(error) if error.contains("in use") && tries < 5 => {}
                Err(_) => break (common::own_server(&settings)?, port),
            }
        };
        let (root, certificate, key) = certificates();
        put(server.folder(), "cert.pem", &certificate);
        put(server.folder(), "key.pem", &key);
        let access = "local all longrun trust\nhost all app 127.0.0.1/32 scram-sha-256\n";
        put(&server.folder().join("data"), "pg_hba.conf", access);
        let admin = common::connect(&server.address()).await;
        let folder = server.folder().display();
        for text in [
            format!("ALTER SYSTEM SET ssl_cert_file = '{folder}/cert.pem'"),
            format!("ALTER SYSTEM SET ssl_key_file = '{folder}/key.pem'"),
            "ALTER SYSTEM SET ssl = on".to_owned(),
            format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'"),
            "GRANT CREATE ON DATABASE postgres TO app".to_owned(),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            admin.batch_execute(&text).await.unwrap();
        }
        // A reload comes to a new connection when it comes.
        common::until(async || {
            let client = common::connect(&server.address()).await;
            client.query_one("SHOW ssl", &[]).await.unwrap().get::<_, String>(0) == "on"
        })
        .await;
        Some(Self { server, port, root })
    }

    fn address(&self, password: &str, mode: &str) -> String {
        let port = self.port;
        format!("postgres://app:{password}@localhost:{port}/postgres?hostaddr=127.0.0.1&sslmode={mode}")
    }

    fn options(&self, mode: &str) -> PostgresOptions {
        common::options(&self.address(PASSWORD, mode), &self.server.fresh_schema())
    }
}

async fn works(options: PostgresOptions) {
    let store = PostgresStore::open(options).await.unwrap();
    let fence = store.take_over().await.unwrap();
    store.commit(Draft::chain(1, 1).accept(fence).1).await.unwrap();
    assert!(store.load(operation_id(1)).await.unwrap().is_some());
    assert!(!format!("{store:?}").contains(PASSWORD));
}

async fn refused(options: PostgresOptions) -> String {
    let shown = format!("{options:?}");
    let error = PostgresStore::open(options).await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable(_)), "{error:?}");
    let told = format!("{shown} {error} {error:?} {}", longrun_store::with_causes(&error));
    assert!(!told.contains(PASSWORD), "{told}");
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_known_by_its_certificate_and_the_store_by_its_password() {
    let Some(server) = Server::start().await else { return };
    for mode in ["require", "prefer"] {
        works(server.options(mode).root_certificates(server.root.as_bytes())).await;
        let other = certificates().0;
        let told = refused(server.options(mode).root_certificates(other.as_bytes())).await;
        assert!(told.contains("certificate"), "{told}");
        // That of nobody in particular.
        refused(server.options(mode)).await;
    }
    works(server.options("disable")).await;
    // By another name than that in the certificate.
    let address = server.address(PASSWORD, "require").replace("@localhost", "@other.example");
    let options = common::options(&address, "other").root_certificates(server.root.as_bytes());
    let told = refused(options).await;
    assert!(told.contains("certificate"), "{told}");
    for mode in ["require", "disable"] {
        let options = common::options(&server.address("wrong", mode), "other");
        let told = refused(options.root_certificates(server.root.as_bytes())).await;
        assert!(told.contains("password authentication failed"), "{told}");
    }
}

/// Whatever is wrong with an address, the password in it is not shown.
#[tokio::test]
async fn the_password_of_an_address_is_never_shown() {
    for address in [
        format!("postgres://app:{PASSWORD}@localhost:1/postgres"),
        format!("postgres://app:{PASSWORD}@localhost:x/postgres"),
        format!("postgres://app:{PASSWORD}@[::1/postgres"),
        format!("postgres://app:{PASSWORD}@localhost/postgres?nonsense=1"),
        format!("postgres://app:{PASSWORD}%ff@localhost:1/postgres"),
        format!("host=127.0.0.1 port=1 user=app password={PASSWORD}"),
        format!("host=127.0.0.1 port=1 user=app password='{PASSWORD}"),
        format!("host=127.0.0.1 port=1 user=app pasword={PASSWORD}"),
        format!("host=127.0.0.1 port=1 user=app password=one {PASSWORD}=1"),
        PASSWORD.to_owned(),
    ] {
        let options = PostgresOptions::new(address.clone());
        let shown = format!("{options:?}");
        let error = PostgresStore::open(options).await.unwrap_err();
        let told = format!("{shown} {error} {error:?} {}", longrun_store::with_causes(&error));
        assert!(!told.contains(PASSWORD), "{address} {told}");
    }
}
