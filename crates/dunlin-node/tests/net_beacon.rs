//! Beacons in one process, over loopback only.
#![allow(clippy::unwrap_used)]

use dunlin_node::net::beacon::{BEACON_PORT, Beacon, BeaconMode, BeaconOptions, GROUP_V4, Sighting};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, channel};

fn start(seed: u8, port: u16) -> (Beacon, Receiver<Sighting>, [u8; 32]) {
    let (tx, rx) = channel(64);
    let secret_key = [seed; 32];
    let options = BeaconOptions { secret_key, ports: (Some(port), None), mode: BeaconMode::Loopback };
    let id = *iroh::SecretKey::from_bytes(&secret_key).public().as_bytes();
    (Beacon::start(options, tx).unwrap(), rx, id)
}

/// Waits for `id`: other tests of this machine may be heard too.
async fn sees(rx: &mut Receiver<Sighting>, id: [u8; 32]) -> Option<Sighting> {
    let end = tokio::time::Instant::now() + Duration::from_secs(2);
    loop {
        match tokio::time::timeout_at(end, rx.recv()).await {
            Ok(Some(s)) if s.device == id => return Some(s),
            Ok(Some(_)) => {}
            _ => return None,
        }
    }
}

#[tokio::test]
async fn asks_answers_asks_again_and_stops() {
    let (a, mut heard_a, id_a) = start(61, 4001);
    let (b, mut heard_b, id_b) = start(62, 4002);
    assert!(!a.is_deaf());
    let at = |port: u16| vec![format!("127.0.0.1:{port}").parse().unwrap()];
    assert_eq!(sees(&mut heard_b, id_a).await.unwrap().addrs, at(4001));
    assert_eq!(sees(&mut heard_a, id_b).await.unwrap().addrs, at(4002));
    // After the first questions it is quiet until somebody asks.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    while heard_b.try_recv().is_ok() {}
    b.ask();
    assert!(sees(&mut heard_b, id_a).await.is_some());
    a.stop().await;
    while heard_b.try_recv().is_ok() {}
    tokio::time::sleep(Duration::from_millis(600)).await;
    b.ask();
    assert!(sees(&mut heard_b, id_a).await.is_none(), "a stopped beacon answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_packets_hides_nobody() {
    let (_a, mut heard, _) = start(63, 4003);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood = std::thread::spawn({
        let stop = stop.clone();
        move || {
            // Another loopback address, as another host would be.
            let socket = std::net::UdpSocket::bind("127.0.0.9:0").unwrap();
            let on_loopback = std::net::Ipv4Addr::LOCALHOST;
            socket2::SockRef::from(&socket).set_multicast_if_v4(&on_loopback).unwrap();
            let mut packet = [7_u8; 114];
            packet[..5].copy_from_slice(b"DNLN\x01");
            let mut sent = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                packet[18..26].copy_from_slice(&sent.to_be_bytes());
                sent += u64::from(socket.send_to(&packet, (GROUP_V4, BEACON_PORT)).is_ok());
                std::thread::sleep(Duration::from_micros(20));
            }
            sent
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start_at = Instant::now();
    let (_b, _heard_b, id_b) = start(64, 4004);
    let seen = sees(&mut heard, id_b).await;
    let took = start_at.elapsed();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    println!("seen after {took:?} under a flood of {} packets", flood.join().unwrap());
    assert!(seen.is_some());
}

#[tokio::test]
async fn two_with_one_key_learn_of_each_other_and_no_others_do() {
    let (a, _heard_a, _) = start(65, 4005);
    let (other, _heard_other, _) = start(66, 4006);
    let mut at_a = a.doubles();
    // Alone, it hears itself on its own link, and others.
    a.ask();
    assert!(tokio::time::timeout(Duration::from_millis(1_500), at_a.changed()).await.is_err());
    let (twin, _heard_twin, _) = start(65, 4007);
    let mut at_twin = twin.doubles();
    for (seen, port) in [(&mut at_a, 4007), (&mut at_twin, 4005)] {
        tokio::time::timeout(Duration::from_secs(2), seen.changed()).await.unwrap().unwrap();
        assert_eq!(*seen.borrow(), Some(format!("127.0.0.1:{port}").parse().unwrap()));
    }
    assert_eq!(*other.doubles().borrow(), None);
}
