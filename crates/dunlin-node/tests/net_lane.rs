//! The TCP lane's TLS: who gets in, who is believed, and what strangers cost.
#![allow(clippy::unwrap_used)]

use dunlin_node::net::lane::{Admits, LaneStream, Listener, client};
use iroh::SecretKey;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, alg_id};
use rustls::sign::{CertifiedKey, public_key_to_spki};
use rustls::{ClientConfig, SignatureScheme};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const SOON: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
const ME: u8 = 1;
const MEMBER: u8 = 2;
const STRANGER: u8 = 3;

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

fn key(seed: u8) -> [u8; 32] {
    *secret(seed).public().as_bytes()
}

/// A device that lets `MEMBER` in.
fn device() -> (Listener, SocketAddr) {
    let admits: Admits = Arc::new(|k: &[u8; 32]| *k == key(MEMBER));
    let listener = Listener::bind(&["127.0.0.1:0".parse().unwrap()], &secret(ME), admits).unwrap();
    let port = listener.ports().0.unwrap();
    (listener, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Connects; the first byte is what says that one is let in.
async fn knock(at: SocketAddr, config: ClientConfig) -> io::Result<u8> {
    let tcp = TcpStream::connect(at).await?;
    let nobody = ServerName::try_from("nobody.invalid").unwrap();
    let mut tls = timeout(SOON, TlsConnector::from(Arc::new(config)).connect(nobody, tcp)).await??;
    timeout(SOON, tls.read_u8()).await?
}

async fn got(listener: &Listener) -> Option<([u8; 32], LaneStream)> {
    timeout(Duration::from_millis(200), listener.accept()).await.ok().flatten()
}

/// A key that is shown, and the one that signs.
#[derive(Debug)]
struct Shows(Option<Arc<CertifiedKey>>);

impl Shows {
    fn key_of(shown: u8, signing: u8) -> Shows {
        let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        der.extend([signing; 32]);
        let signs = any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).unwrap();
        let shown: SubjectPublicKeyInfoDer = public_key_to_spki(&alg_id::ED25519, key(shown));
        Shows(Some(Arc::new(CertifiedKey::new(vec![shown.as_ref().to_vec().into()], signs))))
    }
}

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_side_takes_only_the_key_that_it_may() {
    let (listener, at) = device();
    assert_eq!(knock(at, client(&secret(MEMBER), key(ME)).unwrap()).await.unwrap(), 1);
    assert_eq!(got(&listener).await.unwrap().0, key(MEMBER));
    // The one that connects wants another device.
    assert!(knock(at, client(&secret(MEMBER), key(STRANGER)).unwrap()).await.is_err());
    // The one that accepts does not know this key.
    assert!(knock(at, client(&secret(STRANGER), key(ME)).unwrap()).await.is_err());
    let with = |shows: Shows| {
        let mut config = client(&secret(STRANGER), key(ME)).unwrap();
        config.client_auth_cert_resolver = Arc::new(shows);
        config
    };
    // What follows differs from this in one thing only.
    assert_eq!(knock(at, with(Shows::key_of(MEMBER, MEMBER))).await.unwrap(), 1);
    assert!(got(&listener).await.is_some());
    // A member's key without its secret; no key at all; another protocol.
    assert!(knock(at, with(Shows::key_of(MEMBER, STRANGER))).await.is_err());
    assert!(knock(at, with(Shows(None))).await.is_err());
    let mut other = client(&secret(MEMBER), key(ME)).unwrap();
    other.alpn_protocols = vec![b"h2".to_vec()];
    assert!(knock(at, other).await.is_err());
    let mut none = client(&secret(MEMBER), key(ME)).unwrap();
    none.alpn_protocols.clear();
    assert!(knock(at, none).await.is_err());
    assert!(got(&listener).await.is_none(), "somebody was let in");
}

/// The first message of TLS 1.2: every suite and curve there is a use for, no later version.
const HELLO_1_2: &[u8] = b"\x16\x03\x01\x00\x4f\x01\x00\x00\x4b\x03\x03\
    0123456789abcdef0123456789abcdef\x00\x00\x04\xc0\x2b\xc0\x2f\x01\x00\
    \x00\x1e\x00\x0a\x00\x04\x00\x02\x00\x1d\x00\x0b\x00\x02\x01\x00\
    \x00\x0d\x00\x0c\x00\x0a\x08\x07\x04\x03\x04\x01\x08\x04\x08\x05";
/// The answer to it.
const SERVER_1_2: &[u8] = b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03\
    0123456789abcdef0123456789abcdef\x00\xc0\x2b\x00";
/// The alert "protocol version", as it stands in its record.
const WRONG_VERSION: &[u8] = b"\x15\x03\x03\x00\x02\x02\x46";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_versions_of_tls_are_refused_by_both_sides() {
    let (listener, at) = device();
    let mut tcp = TcpStream::connect(at).await.unwrap();
    tcp.write_all(HELLO_1_2).await.unwrap();
    let mut told = Vec::new();
    let _ = timeout(SOON, tcp.read_to_end(&mut told)).await.unwrap();
    assert_eq!(told, WRONG_VERSION);
    assert!(got(&listener).await.is_none());

    let old = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = old.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut tcp, _) = old.accept().await.unwrap();
        let mut head = [0; 5];
        tcp.read_exact(&mut head).await.unwrap();
        tcp.read_exact(&mut vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))]).await.unwrap();
        tcp.write_all(SERVER_1_2).await.unwrap();
        let mut told = Vec::new();
        let _ = timeout(SOON, tcp.read_to_end(&mut told)).await.unwrap();
        told
    });
    assert!(knock(at, client(&secret(MEMBER), key(ME)).unwrap()).await.is_err());
    assert_eq!(server.await.unwrap(), WRONG_VERSION);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_drip_are_cut_off_and_keep_no_member_out_for_long() {
    let (listener, at) = device();
    let mut drips = tokio::task::JoinSet::new();
    for i in 0..300_usize {
        drips.spawn(async move {
            // No more at once than the kernel queues: others it has wait for up to half a minute, whoever listens.
            tokio::time::sleep(Duration::from_millis(5 * i as u64)).await;
            let mut tcp = TcpStream::connect(at).await.unwrap();
            // Some say nothing, some begin a hello that never ends.
            for byte in HELLO_1_2.iter().cycle().take(i % 3 * 1000) {
                if tcp.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        });
    }
    let begun = Instant::now();
    while knock(at, client(&secret(MEMBER), key(ME)).unwrap()).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "kept out");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(timeout(SOON, listener.accept()).await.unwrap().unwrap().0, key(MEMBER));
    let all = async { while drips.join_next().await.is_some() {} };
    timeout(PATIENCE, all).await.expect("each is cut off");
}
