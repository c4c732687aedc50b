//! A node and a device of the test's own, which find each other over loopback only.
#![allow(clippy::unwrap_used)]

use dunlin_core::message::{ALPN, ALPN_JOIN, JoinAnswer, JoinRequest, read};
use dunlin_core::ticket::Ticket;
use dunlin_node::control::Api;
use dunlin_node::home::Home;
use dunlin_node::net::beacon::{Beacon, BeaconMode, BeaconOptions};
use dunlin_node::net::transport::{BindOptions, Transport};
use dunlin_node::transfer::{read_frame, send_frame};
use dunlin_node::{NodeOptions, start};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

async fn bind(secret_key: [u8; 32]) -> Transport {
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let alpns = vec![ALPN.to_vec(), ALPN_JOIN.to_vec()];
    Transport::bind(BindOptions { listen, ..BindOptions::new(secret_key, alpns) }).await.unwrap()
}

/// Becomes a member by a ticket.
async fn admitted(transport: &Transport, ticket: &Ticket) -> bool {
    let conn = transport.connect(ticket.inviter.0, &ticket.addresses, ALPN_JOIN, SOON).await.unwrap();
    let (mut send, mut recv) = conn.open_bi().await.unwrap();
    let request = JoinRequest { folder: ticket.folder, secret: ticket.secret, name: "guest".into() };
    send_frame(&mut send, &request).await.unwrap();
    let body = read_frame(&mut recv).await.unwrap().unwrap();
    matches!(read(&body).unwrap(), JoinAnswer::Admitted { .. })
}

/// A device is heard while it is a stranger, and that is forgotten; it becomes a member, and says no
/// more by itself for 20 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_seen_as_a_stranger_is_found_as_a_member() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::open(&temp.path().join("home")).unwrap().lock().unwrap();
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let node = start(NodeOptions { home: std::sync::Arc::new(home), listen, discovery: true }).await.unwrap();
    let key = [91; 32];
    let guest = bind(key).await;
    let (found, _sightings) = tokio::sync::mpsc::channel(64);
    let options = BeaconOptions { secret_key: key, ports: guest.ports(), mode: BeaconMode::Loopback };
    let _beacon = Beacon::start(options, found).unwrap();
    // Until its first questions are over.
    tokio::time::sleep(Duration::from_millis(2_500)).await;

    let ticket = node.share(temp.path().join("shared")).await.unwrap().ticket;
    // It joins from where it cannot be reached afterwards.
    let elsewhere = bind(key).await;
    assert!(admitted(&elsewhere, &Ticket::parse(&ticket).unwrap()).await);
    elsewhere.close().await;
    drop(elsewhere);
    let dialled = tokio::time::timeout(SOON, guest.accept()).await.expect("it is not looked for").unwrap();
    assert_eq!(dialled.alpn(), ALPN);
    node.stop().await;
}
