//! The transport over loopback, within one process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use dunlin_node::net::connection::{Closed, Connection};
use dunlin_node::net::transport::{BindError, BindOptions, Congestion, ConnectError, Transport};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const ALPN: &[u8] = b"dunlin-test/1";
const SOON: Duration = Duration::from_secs(5);

fn options(seed: u8) -> BindOptions {
    let listen = Some("127.0.0.1:0".parse().unwrap());
    BindOptions { listen, ..BindOptions::new([seed; 32], vec![ALPN.to_vec()]) }
}

async fn bind(seed: u8) -> Transport {
    Transport::bind(options(seed)).await.unwrap()
}

async fn pair(a: &Transport, b: &Transport, addrs: &[SocketAddr]) -> (Connection, Connection) {
    // One after the other: a dial that fails is told, and not waited for by who accepts.
    let dialled = a.connect(b.id(), addrs, ALPN, SOON).await.unwrap();
    (dialled, b.accept().await.unwrap())
}

#[tokio::test]
async fn streams_carry_data_both_ways_and_a_close_reaches_the_peer() {
    let (a, b) = (bind(1).await, bind(2).await);
    assert_eq!(b.bound().len(), 1, "a loopback address opens no other socket");
    assert!(b.local_addrs().iter().all(|s| s.ip().is_loopback()));
    let (ca, cb) = pair(&a, &b, &b.local_addrs()).await;
    assert_eq!((ca.remote_id(), cb.remote_id()), (b.id(), a.id()));
    assert_eq!((ca.alpn(), cb.alpn()), (ALPN, ALPN));
    assert!(ca.is_dialler() && !cb.is_dialler());

    let (mut tx, mut rx) = ca.open_bi().await.unwrap();
    tx.write_all(b"ping").await.unwrap();
    let (mut tx2, mut rx2) = cb.accept_bi().await.unwrap();
    let mut buf = [0; 4];
    rx2.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"ping");
    tx2.write_all(b"pong").await.unwrap();
    rx.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"pong");

    assert_eq!(ca.remote_addr(), Some(b.bound()[0]));
    assert_eq!(cb.remote_addr(), Some(a.bound()[0]));
    assert!(ca.rtt().is_some_and(|r| r < Duration::from_millis(100)), "{:?}", ca.rtt());

    ca.close(7, b"enough");
    assert_eq!(cb.closed().await, Closed::ByPeer { code: 7, reason: b"enough".to_vec() });
    assert_eq!(ca.closed().await, Closed::Here);
    let start = Instant::now();
    tokio::join!(a.close(), b.close());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(b.accept().await.is_none());
}

#[tokio::test]
async fn a_taken_address_is_an_error_and_is_free_after_close() {
    let a = bind(1).await;
    let at = a.bound()[0];
    let again = || BindOptions { listen: Some(at), ..options(2) };
    match Transport::bind(again()).await {
        Err(BindError::Taken(t)) => assert_eq!(t, at),
        other => panic!("{other:?}"),
    }
    a.close().await;
    drop(a);
    let start = Instant::now();
    let back = loop {
        match Transport::bind(again()).await {
            Ok(back) => break back,
            Err(e) => assert!(start.elapsed() < SOON, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    println!("address free again after {:?}", start.elapsed());
    back.close().await;
}

#[tokio::test]
async fn a_transport_dropped_without_close_frees_its_address() {
    let a = bind(1).await;
    let at = a.bound()[0];
    drop(a);
    let start = Instant::now();
    while let Err(e) = Transport::bind(BindOptions { listen: Some(at), ..options(2) }).await {
        assert!(start.elapsed() < SOON, "{e}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Many at once from one machine: none is turned away for good.
#[tokio::test]
async fn a_flock_dials_one_device_at_once() {
    let b = std::sync::Arc::new(bind(2).await);
    let (id, at) = (b.id(), b.bound());
    let mut dials = tokio::task::JoinSet::new();
    let start = Instant::now();
    for seed in 100..140 {
        let at = at.clone();
        dials.spawn(async move {
            let a = bind(seed).await;
            let conn = a.connect(id, &at, ALPN, SOON).await.unwrap();
            (a, conn)
        });
    }
    let mut accepted = Vec::new();
    while accepted.len() < 40 {
        accepted.push(tokio::time::timeout(SOON, b.accept()).await.unwrap().unwrap());
    }
    let dialled = dials.join_all().await;
    println!("40 devices connected after {:?}", start.elapsed());
    assert_eq!(dialled.len(), 40);
}

#[tokio::test]
async fn an_address_of_another_machine_is_an_error() {
    let listen = Some("192.0.2.1:9".parse().unwrap());
    let got = Transport::bind(BindOptions { listen, ..options(1) }).await;
    assert!(matches!(got, Err(BindError::Socket { .. })), "{got:?}");
}

#[tokio::test]
async fn dead_addresses_do_not_delay_a_connect() {
    let (a, b) = (bind(1).await, bind(2).await);
    // Sockets that never answer, and ports where nothing is.
    let deaf: Vec<_> = (0..4).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let mut addrs: Vec<SocketAddr> = deaf.iter().map(|s| s.local_addr().unwrap()).collect();
    addrs.extend(["127.0.0.1:9", "127.0.0.1:11", "127.0.0.2:9"].map(|s| s.parse::<SocketAddr>().unwrap()));
    addrs.extend(b.bound());
    let start = Instant::now();
    let (ca, _cb) = pair(&a, &b, &addrs).await;
    let took = start.elapsed();
    println!("connect with {} dead addresses: {took:?}", addrs.len() - 1);
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert_eq!(ca.remote_addr(), Some(b.bound()[0]));
}

/// A way to `to` that takes its time: who else is asked answers first. Ends with the test's runtime.
async fn detour(to: SocketAddr) -> SocketAddr {
    const WAY: Duration = Duration::from_millis(30);
    let front = std::sync::Arc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let here = front.local_addr().unwrap();
    tokio::spawn(async move {
        let mut ways = std::collections::BTreeMap::new();
        let mut packet = vec![0; 1 << 16];
        loop {
            let (n, from) = front.recv_from(&mut packet).await.unwrap();
            if let std::collections::btree_map::Entry::Vacant(new) = ways.entry(from) {
                let back = std::sync::Arc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
                back.connect(to).await.unwrap();
                new.insert(back.clone());
                let front = front.clone();
                tokio::spawn(async move {
                    let mut packet = vec![0; 1 << 16];
                    while let Ok(n) = back.recv(&mut packet).await {
                        front.send_to(&packet[..n], from).await.unwrap();
                    }
                });
            }
            let (way, packet) = (ways[&from].clone(), packet[..n].to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(WAY).await;
                let _ = way.send(&packet).await;
            });
        }
    });
    here
}

/// One of the addresses known of a device has another device by now, which answers faster.
#[tokio::test]
async fn somebody_else_at_one_address_does_not_hide_a_device_at_another() {
    let (a, b, other) = (bind(1).await, bind(2).await, bind(3).await);
    let there = detour(b.bound()[0]).await;
    let addrs = [other.bound()[0], there];
    // The second time iroh has both addresses in mind, whatever is dialled.
    for addrs in [&addrs[..], &addrs[1..]] {
        let (ca, cb) = pair(&a, &b, addrs).await;
        assert_eq!((ca.remote_id(), cb.remote_id()), (b.id(), a.id()));
        let (mut tx, _rx) = ca.open_bi().await.unwrap();
        tx.write_all(b"ping").await.unwrap();
        cb.accept_bi().await.unwrap();
        ca.close(7, b"");
        assert_eq!(cb.closed().await, Closed::ByPeer { code: 7, reason: Vec::new() });
    }
    // It ends with the transport, as any other.
    let (_ca, cb) = pair(&a, &b, &addrs).await;
    a.close().await;
    assert!(matches!(cb.closed().await, Closed::ByPeer { code: 0, .. }), "{:?}", cb.close_reason());
}

#[tokio::test]
async fn dials_that_cannot_work_end_in_time() {
    let (a, b) = (bind(1).await, bind(2).await);
    let dial = |id, addrs: Vec<SocketAddr>| {
        let a = &a;
        async move { a.connect(id, &addrs, ALPN, Duration::from_millis(400)).await.unwrap_err() }
    };
    assert!(matches!(dial(b.id(), vec![]).await, ConnectError::NoAddress));
    assert!(matches!(dial(a.id(), b.bound()).await, ConnectError::BadKey));
    // Another device listens there: it cannot prove the key.
    let third = bind(3).await;
    let start = Instant::now();
    let wrong = dial(third.id(), b.bound()).await;
    println!("wrong key: {wrong} after {:?}", start.elapsed());
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let start = Instant::now();
    let silent = dial(b.id(), vec![nobody.local_addr().unwrap()]).await;
    assert!(matches!(silent, ConnectError::TimedOut), "{silent:?}");
    assert!(start.elapsed() < Duration::from_millis(600));
    let alpn = a.connect(b.id(), &b.bound(), b"other/1", SOON).await.unwrap_err();
    assert!(matches!(alpn, ConnectError::Failed(_)), "{alpn:?}");
}

#[tokio::test]
async fn junk_at_the_port_does_not_keep_a_peer_out() {
    let (a, b) = (bind(1).await, bind(2).await);
    let at = b.bound()[0];
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut junk = [0xc3_u8; 1200];
            let mut i = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                i += 1;
                junk[1..5].copy_from_slice(&1_u32.to_be_bytes());
                junk[6..14].copy_from_slice(&i.to_be_bytes());
                let _ = socket.send_to(&junk, at);
                std::thread::sleep(Duration::from_micros(50));
            }
            i
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    let (ca, cb) = pair(&a, &b, &[at]).await;
    println!("connect under a flood of junk: {:?}", start.elapsed());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    flood.join().unwrap();
    ca.close(0, b"");
    cb.closed().await;
}

/// Not a benchmark; shows on request that neither controller is broken. Run with `--ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints throughput"]
async fn throughput_over_loopback() {
    for congestion in [Congestion::Cubic, Congestion::Bbr3, Congestion::Cubic, Congestion::Bbr3] {
        let a = Transport::bind(BindOptions { congestion, ..options(1) }).await.unwrap();
        let b = Transport::bind(BindOptions { congestion, ..options(2) }).await.unwrap();
        let (ca, cb) = pair(&a, &b, &b.bound()).await;
        let start = Instant::now();
        let total = 256 << 20;
        let sender = tokio::spawn(async move {
            let mut parts = tokio::task::JoinSet::new();
            for _ in 0..4 {
                let ca = ca.clone();
                parts.spawn(async move {
                    let (mut tx, mut rx) = ca.open_bi().await.unwrap();
                    let block = vec![7; 1 << 16];
                    for _ in 0..(total / 4) >> 16 {
                        tx.write_all(&block).await.unwrap();
                    }
                    tx.finish().unwrap();
                    rx.read_to_end(1).await.unwrap();
                });
            }
            parts.join_all().await;
        });
        let mut parts = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (mut tx, mut rx) = cb.accept_bi().await.unwrap();
            parts.spawn(async move {
                while let Ok(Some(_)) = rx.read_chunk(1 << 18).await {}
                tx.finish().unwrap();
            });
        }
        sender.await.unwrap();
        let secs = start.elapsed().as_secs_f64();
        println!("{congestion:?}: {:.0} MiB/s", f64::from(total >> 20) / secs);
        tokio::join!(a.close(), b.close());
    }
}
