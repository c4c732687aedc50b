//! Real nodes, and devices that do not mean well: strangers, and members with a key of their own.
#![allow(clippy::unwrap_used)]

use crate::rogues::*;
use dunlin_core::ids::{ContentId, Dot, Incarnation, ROOT};
use dunlin_core::message::{ALPN, ALPN_JOIN, ChunkPage, Header, Held, Message, Request, frame};
use dunlin_core::state::COUNTER_MAX;
use dunlin_node::control::{Api, JoinRequest as Join};
use dunlin_node::net::connection::Closed;
use dunlin_node::net::transport::ConnectError;
use dunlin_node::transfer::{read_frame, send_frame};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn strangers_that_drip_keep_nobody_out_and_take_no_room() {
    if ran_alone("node_hostile::strangers_that_drip_keep_nobody_out_and_take_no_room") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = pair(temp.path()).await;
    let ticket = a.ticket().await;
    let stranger = Arc::new(bind(77).await);
    let before = peak_mib();
    let (mut drips, begun) = (tokio::task::JoinSet::new(), Instant::now());
    for _ in 0..1000 {
        let (stranger, ticket) = (stranger.clone(), ticket.clone());
        drips.spawn(async move {
            // The kernel does not queue what so many send at once: some have to try again.
            let conn = loop {
                let tried = stranger.connect(ticket.inviter.0, &ticket.addresses, ALPN_JOIN, PATIENCE).await;
                match tried {
                    Err(ConnectError::TimedOut) if begun.elapsed() < PATIENCE => {}
                    other => break other.unwrap(),
                }
            };
            let drip = async {
                let Ok((mut send, _recv)) = conn.open_bi().await else { return };
                // A frame as long as may be, a byte at a time.
                for byte in [0, 0, 255].into_iter().chain(std::iter::repeat(1)) {
                    if send.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            drip.await;
            conn.closed().await
        });
    }
    // A guest that means it gets in between them, and the members go on.
    let guest = Honest::start(temp.path(), "guest").await;
    let path = guest.dir.clone().into();
    let ticket = ticket.to_text();
    guest.node.join(Join { ticket, path, below: false }).await.unwrap();
    crosses(&a, &b, "under drips").await;
    crosses(&a, &guest, "to the guest").await;
    // Each is sent away, whatever it still says: when its time is over (2), or for a later one (0). That
    // word may be lost on the way, as any packet.
    let ends = drips.join_all().await;
    let crowded = ends.iter().filter(|e| matches!(e, Closed::ByPeer { code: 0, .. })).count();
    let gone = |e: &Closed| matches!(e, Closed::ByPeer { code: 0 | 2, .. } | Closed::Silent);
    assert!(crowded > 0 && ends.iter().all(gone), "{crowded} made room: {ends:?}");
    println!("peak {} MiB, before {before} MiB", peak_mib());
    // No member: no stream, at once.
    let ticket = a.ticket().await;
    for _ in 0..50 {
        let conn = stranger.connect(ticket.inviter.0, &ticket.addresses, ALPN, SOON).await.unwrap();
        let closed = tokio::time::timeout(SOON, conn.closed()).await.unwrap();
        assert!(matches!(closed, Closed::ByPeer { code: 1, .. }), "{closed:?}");
    }
    assert!(peak_mib() < before + 200, "{} MiB, before {before} MiB", peak_mib());
    end(&[&a, &b, &guest]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_that_talks_nonsense_is_sent_away_and_hurts_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = pair(temp.path()).await;
    let rogue = Rogue::member(&a, 78).await;
    let raw: [(&str, Vec<u8>); 6] = [
        ("junk", frame(&[7_u8; 40])),
        ("too long", vec![0xff; 64]),
        ("an array that claims all memory", [&[0, 0, 0, 9], &[0x82, 3, 0x9b][..], &[0xff; 6]].concat()),
        (
            "a second hello",
            frame(&Message::Hello { min: 1, max: 1, features: 0, nonce: 1, name: "x".into() }),
        ),
        ("rows before all", frame(&rogue.rows(1, Vec::new()))),
        ("a row of the root", {
            let (_, state) = rogue.file("x", ContentId([1; 32]), 1, 1);
            [frame(&rogue.open()), frame(&rogue.rows(1, vec![(ROOT, state)]))].concat()
        }),
    ];
    for (what, bytes) in raw {
        let mut talk = rogue.talk().await;
        // It may be sent away before it said all.
        let _ = talk.send.write_all(&bytes).await;
        let closed = tokio::time::timeout(SOON, talk.conn.closed()).await;
        assert!(matches!(closed, Ok(Closed::ByPeer { .. })), "{what}: {closed:?}");
    }
    // Requests without end: no more than the bound are served, and nonsense ends it all.
    let talk = rogue.talk().await;
    let mut streams = Vec::new();
    while let Ok(Ok((mut send, recv))) =
        tokio::time::timeout(Duration::from_millis(300), talk.conn.open_bi()).await
    {
        send.write_all(&[0, 0]).await.unwrap();
        streams.push((send, recv));
        assert!(streams.len() < 100);
    }
    crosses(&a, &b, "beside many streams").await;
    let (send, _) = &mut streams[0];
    send.write_all(&[0, 1, 0xff]).await.unwrap();
    let closed = tokio::time::timeout(SOON, talk.conn.closed()).await;
    assert!(matches!(closed, Ok(Closed::ByPeer { code: 2, .. })), "{closed:?}");
    crosses(&a, &b, "at the end").await;
    a.wait().await;
    end(&[&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_that_floods_fills_no_memory() {
    if ran_alone("node_hostile::a_member_that_floods_fills_no_memory") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = pair(temp.path()).await;
    let rogue = Rogue::member(&a, 79).await;
    let mut talk = rogue.talk().await;
    let before = peak_mib();
    send_frame(&mut talk.send, &rogue.open()).await.unwrap();
    // Frames as long as may be, of a kind that is not known; as many as it takes in 2 s.
    let mut long = vec![0x82, 0x18, 99, 0x81, 0x5a, 0, 15, 0, 0];
    long.resize(9 + (15 << 16), 7);
    let long = [&u32::try_from(long.len()).unwrap().to_be_bytes()[..], &long].concat();
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        talk.send.write_all(&long).await.unwrap();
        sent += 1;
    }
    crosses(&a, &b, "beside a flood").await;
    println!("{sent} MiB sent, peak {} MiB, before {before} MiB", peak_mib());
    assert!(peak_mib() < before + 150, "{} MiB, before {before} MiB", peak_mib());
    end(&[&a, &b]).await;
}

/// Values at the end of their range must not keep honest devices from changing what they belong to,
/// and a state as large as a frame must not be one that nobody can pass on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn absurd_rows_poison_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = pair(temp.path()).await;
    let rogue = Rogue::member(&a, 80).await;
    let Talk { conn, mut send, recv } = rogue.talk().await;
    tokio::spawn(async move {
        let mut recv = recv;
        while let Ok(Some(_)) = read_frame(&mut recv).await {}
    });
    let text = b"ranked as high as can be";
    tokio::spawn(answers(conn.clone(), move |mut send, request| {
        tokio::spawn(async move {
            let Request::Pieces { pieces, .. } = request else { return };
            for _ in pieces {
                send_frame(&mut send, &Header::Here).await.unwrap();
                send.write_all(text).await.unwrap();
            }
            let _ = send.finish();
        });
    }));
    send_frame(&mut send, &rogue.open()).await.unwrap();
    let id = ContentId(*blake3::hash(text).as_bytes());
    let high = rogue.file("high", id, text.len() as u64, COUNTER_MAX);
    // One that fills its frame, with as many incarnations as go in; and two that do so once merged.
    let huge = |name: &str, from: u32, count: u32| {
        let (node, mut state) = rogue.file(name, id, text.len() as u64, 1);
        for i in from..from + count {
            let mut inc = [9; 16];
            inc[..4].copy_from_slice(&i.to_be_bytes());
            state.seen.add(Dot { inc: Incarnation(inc), counter: COUNTER_MAX });
        }
        (node, state)
    };
    send_frame(&mut send, &rogue.rows(1, vec![high])).await.unwrap();
    for (upto, row) in [huge("full", 0, 36_000), huge("split", 0, 20_000), huge("split", 50_000, 20_000)]
        .into_iter()
        .enumerate()
    {
        send_frame(&mut send, &rogue.rows(2 + upto as u64, vec![row])).await.unwrap();
    }
    for at in [&a, &b] {
        let path = at.dir.join("high");
        until("the file arrives", || std::fs::read(&path).is_ok_and(|t| t == text)).await;
    }
    // Everybody may change it, and all know.
    for (from, to, words) in [(&a, &b, "changed here"), (&b, &a, "and there")] {
        std::fs::write(from.dir.join("high"), words).unwrap();
        let path = to.dir.join("high");
        until(words, || std::fs::read(&path).is_ok_and(|t| t == words.as_bytes())).await;
    }
    crosses(&a, &b, "after absurd rows").await;
    assert!(conn.close_reason().is_none(), "{:?}", conn.close_reason());
    for at in [&a, &b] {
        until("in sync with each other", || {
            let folder = now(at.status());
            folder.need_files == 0 && folder.devices.iter().any(|d| d.connected && d.in_sync)
        })
        .await;
    }
    end(&[&a, &b]).await;
}

/// Members that are asked first: one never answers, one answers half a word or something else, one
/// something else always. Another is asked in their stead.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn small_contents_come_with_their_rows_and_are_what_their_hash_says() {
    let temp = tempfile::tempdir().unwrap();
    let a = Honest::start(temp.path(), "a").await;
    a.node.share(a.dir.clone()).await.unwrap();
    let rogue = Rogue::member(&a, 9).await;
    let mut talk = rogue.talk().await;
    send_frame(&mut talk.send, &rogue.open()).await.unwrap();
    // It answers no request: what shows came unasked.
    tokio::spawn(answers(talk.conn.clone(), |send, _| {
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(send);
        });
    }));
    let id = |text: &[u8]| ContentId(*blake3::hash(text).as_bytes());
    let contents = vec![b"a small one".to_vec().into(), b"another".to_vec().into()];
    send_frame(&mut talk.send, &Message::Contents { folder: rogue.folder, contents }).await.unwrap();
    let told = [rogue.file("small", id(b"a small one"), 11, 1), rogue.file("forged", id(b"the right"), 7, 1)];
    send_frame(&mut talk.send, &rogue.rows(1, told.into())).await.unwrap();
    until("what came along", || std::fs::read(a.dir.join("small")).is_ok_and(|t| t == b"a small one")).await;
    assert!(!a.dir.join("forged").exists());
    end(&[&a]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_member_withholds_or_forges_is_asked_of_another() {
    let temp = tempfile::tempdir().unwrap();
    let mut rogues = Vec::new();
    // Every one of them is asked before b: they are sorted.
    let id = |seed: &u8| *iroh::SecretKey::from_bytes(&[*seed; 32]).public().as_bytes();
    let mut seeds: Vec<u8> = (100..=255).collect();
    seeds.sort_by_key(id);
    let (a, b) = pair_with(temp.path(), seeds.pop()).await;
    // What replaces a large file is asked for by its chunk list: that is known to all, to older programs too.
    std::fs::write(b.dir.join("large"), vec![7; 2 << 20]).unwrap();
    until("the older one", || std::fs::metadata(a.dir.join("large")).is_ok_and(|m| m.len() == 2 << 20)).await;
    a.wait().await;
    for seed in seeds.into_iter().take(3) {
        rogues.push(Rogue::member(&a, seed).await);
    }
    let asked = Arc::new(AtomicUsize::new(0));
    for (kind, rogue) in rogues.iter().enumerate() {
        let mut talk = rogue.talk().await;
        send_frame(&mut talk.send, &rogue.open()).await.unwrap();
        let asked = asked.clone();
        tokio::spawn(answers(talk.conn.clone(), move |mut send, request| {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                match (kind, request) {
                    (0, _) => std::future::pending().await,
                    (1, Request::Pieces { .. }) => {
                        let _ = send.write_all(&[0, 0]).await;
                        std::future::pending().await
                    }
                    (_, Request::Pieces { pieces, .. }) => {
                        for piece in pieces {
                            let _ = send_frame(&mut send, &Header::Here).await;
                            let _ = send.write_all(&vec![7; piece.len as usize]).await;
                        }
                    }
                    (_, Request::Chunks { .. }) => {
                        let _ =
                            send_frame(&mut send, &ChunkPage::Chunks { chunks: vec![], last: true }).await;
                    }
                    // Programs of their kind know nothing of pages.
                    (_, Request::PageList { .. } | Request::Pages { .. }) => unreachable!(),
                    (_, Request::Have { .. }) => {
                        let _ = send_frame(&mut send, &Held { bits: vec![0xff; 1 << 16] }).await;
                    }
                    _ => {}
                }
            });
        }));
        tokio::spawn(async move {
            let Talk { conn: _conn, send: _send, mut recv } = talk;
            while let Ok(Some(_)) = read_frame(&mut recv).await {}
        });
    }
    let connected = || now(a.status()).devices.iter().filter(|d| d.connected).count();
    until("all share the folder", || connected() == 4).await;
    let large: Vec<u8> = (0..3_u32 << 18).flat_map(u32::to_be_bytes).collect();
    std::fs::write(b.dir.join("large"), &large).unwrap();
    // The first is busy with that for good: the small one goes past it.
    until("the first is asked", || asked.load(Ordering::Relaxed) > 0).await;
    std::fs::write(b.dir.join("small"), "small").unwrap();
    until("the small one", || std::fs::read(a.dir.join("small")).is_ok_and(|t| t == b"small")).await;
    until("the large one", || std::fs::read(a.dir.join("large")).is_ok_and(|t| t == large)).await;
    assert!(asked.load(Ordering::Relaxed) >= rogues.len(), "the rogues were asked");
    end(&[&a, &b]).await;
}
