//! Real nodes, and members that use the TCP lane as it is not meant.
#![allow(clippy::unwrap_used)]

use crate::rogues::*;
use dunlin_core::ids::{ContentId, FolderId};
use dunlin_core::message::{Chunk, ChunkPage, Header, Message, Piece, Request, read, read_message};
use dunlin_node::control::Tcp;
use dunlin_node::net::connection::SendStream;
use dunlin_node::net::lane::{LaneStream, Listener, client};
use dunlin_node::transfer::{read_frame, send_frame};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const MIB: usize = 1 << 20;

/// Bytes that do not repeat.
fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn id_of(bytes: &[u8]) -> ContentId {
    ContentId(*blake3::hash(bytes).as_bytes())
}

/// The port over which the other side of a conversation listens.
async fn port(talk: &mut Talk) -> u16 {
    loop {
        let body = timeout(PATIENCE, read_frame(&mut talk.recv)).await.unwrap().unwrap().unwrap();
        if let Some(Message::Lane { v4, .. }) = read_message(&body).unwrap() {
            return v4;
        }
    }
}

/// A TCP connection of `seed`'s key to a device that let it in.
async fn lane(seed: u8, to: [u8; 32], port: u16) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let config = client(&iroh::SecretKey::from_bytes(&[seed; 32]), to).map_err(std::io::Error::other)?;
    let nobody = ServerName::try_from("nobody.invalid").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(nobody, tcp).await?;
    assert_eq!(tls.read_u8().await?, 1);
    Ok(tls)
}

async fn ask(stream: &mut TlsStream<TcpStream>, folder: FolderId, content: ContentId, len: usize) {
    let piece = Piece { content, offset: 0, len: len as u64 };
    send_frame(stream, &Request::Pieces { folder, pieces: vec![piece] }).await.unwrap();
    stream.flush().await.unwrap();
}

/// Whether a connection is closed by the other side, whatever it said before.
async fn ends(stream: &mut TlsStream<TcpStream>) -> bool {
    timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_tcp_a_device_gets_what_it_gets_over_quic_and_only_with_it() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = pair(temp.path()).await;
    let text = noise(3 * MIB);
    std::fs::write(a.dir.join("large"), &text).unwrap();
    until("it is everywhere", || std::fs::read(b.dir.join("large")).is_ok_and(|t| t == text)).await;
    let rogue = Rogue::member(&a, 91).await;
    let mut talk = rogue.talk().await;
    let (to, port) = (rogue.to.0.0, port(&mut talk).await);

    let mut stream = lane(91, to, port).await.unwrap();
    // One after the other on one connection.
    for _ in 0..2 {
        ask(&mut stream, rogue.folder, id_of(&text), text.len()).await;
        let head = timeout(PATIENCE, read_frame(&mut stream)).await.unwrap().unwrap().unwrap();
        assert_eq!(read::<Header>(&head).unwrap(), Header::Here);
        let mut came = vec![0; text.len()];
        timeout(PATIENCE, stream.read_exact(&mut came)).await.unwrap().unwrap();
        assert!(came == text);
    }
    // A stranger has no business there, and a member none without QUIC.
    assert!(lane(92, to, port).await.is_err());
    talk.conn.close(0, b"");
    assert!(ends(&mut stream).await);
    let mut refused = false;
    for _ in 0..100 {
        refused = refused || lane(91, to, port).await.is_err();
    }
    assert!(refused, "let in without QUIC");

    // What breaks the protocol ends it all.
    for folder in [FolderId([9; 32]), rogue.folder] {
        let mut talk = rogue.talk().await;
        let mut stream = lane(91, to, self::port(&mut talk).await).await.unwrap();
        if folder == rogue.folder {
            stream.write_all(&[0xff; 64]).await.unwrap();
            stream.flush().await.unwrap();
        } else {
            ask(&mut stream, folder, id_of(&text), 1).await;
        }
        assert!(ends(&mut stream).await);
        timeout(PATIENCE, talk.conn.closed()).await.unwrap();
    }
    crosses(&a, &b, "at the end").await;
    end(&[&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_that_asks_and_does_not_read_takes_no_room() {
    if ran_alone("node_lane::a_member_that_asks_and_does_not_read_takes_no_room") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = pair(temp.path()).await;
    let text = noise(64 * MIB);
    std::fs::write(a.dir.join("large"), &text).unwrap();
    until("it is everywhere", || {
        std::fs::metadata(b.dir.join("large")).is_ok_and(|m| m.len() == text.len() as u64)
    })
    .await;
    let rogue = Rogue::member(&a, 93).await;
    let mut talk = rogue.talk().await;
    let (to, port) = (rogue.to.0.0, port(&mut talk).await);
    let (before, id) = (peak_mib(), id_of(&text));
    let mut all = Vec::new();
    for _ in 0..40 {
        let mut stream = lane(93, to, port).await.unwrap();
        let piece = |i: u64| Piece { content: id, offset: i << 20, len: 1 << 20 };
        let request = Request::Pieces { folder: rogue.folder, pieces: (0..64).map(piece).collect() };
        send_frame(&mut stream, &request).await.unwrap();
        stream.flush().await.unwrap();
        all.push(stream);
    }
    crosses(&a, &b, "beside it").await;
    println!("peak {} MiB, before {before} MiB", peak_mib());
    assert!(peak_mib() < before + 40, "{} MiB, before {before} MiB", peak_mib());
    // Of so many, the last 8 are served, and whole.
    let served = all.split_off(32);
    for mut stream in all {
        assert!(ends(&mut stream).await);
    }
    for mut stream in served {
        let len = 64 * (read_size() + MIB);
        timeout(PATIENCE, stream.read_exact(&mut vec![0; len])).await.unwrap().unwrap();
    }
    end(&[&a, &b]).await;
}

/// The bytes of the frame before a piece.
fn read_size() -> usize {
    dunlin_core::message::frame(&Header::Here).len()
}

/// Answers a request for `text` as it should be; of the pieces only `part`.
async fn answer(send: &mut (impl AsyncWrite + Unpin), request: Request, text: &[u8], part: usize) {
    match request {
        Request::Pieces { pieces, .. } => {
            for piece in pieces {
                let range = piece.offset as usize..(piece.offset + piece.len) as usize;
                let bytes = &text[range];
                let _ = send_frame(send, &Header::Here).await;
                let _ = send.write_all(&bytes[..bytes.len() / part]).await;
            }
        }
        Request::Chunks { .. } => {
            let all: Vec<Chunk> = chunks_of(text);
            for (i, some) in all.chunks(100).enumerate() {
                let last = (i + 1) * 100 >= all.len();
                let page = ChunkPage::Chunks { chunks: some.to_vec(), last };
                let _ = send_frame(send, &page).await;
            }
        }
        _ => {}
    }
    let _ = send.flush().await;
}

fn chunks_of(text: &[u8]) -> Vec<Chunk> {
    let cut = |bytes: &[u8]| Chunk { len: bytes.len() as u32, hash: id_of(bytes) };
    text.chunks(100_000).map(cut).collect()
}

/// Ways in which a lane is none.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bad {
    /// Nobody is there.
    Refused,
    /// Somebody is there and says nothing.
    Silent,
    /// Another device is there.
    Other,
    /// It stops in the middle of what it says, and stays.
    Stops,
    /// The same, and goes.
    Breaks,
}

/// Opens a lane that is bad; its port.
async fn open(bad: Bad, seed: u8, text: Arc<Vec<u8>>, asked: Arc<AtomicUsize>) -> u16 {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    match bad {
        Bad::Refused => return port,
        Bad::Silent => {
            tokio::spawn(async move {
                let mut held = Vec::new();
                while let Ok((tcp, _)) = tcp.accept().await {
                    asked.fetch_add(1, Ordering::Relaxed);
                    held.push(tcp);
                }
            });
            return port;
        }
        _ => {}
    }
    let secret = iroh::SecretKey::from_bytes(&[if bad == Bad::Other { 200 } else { seed }; 32]);
    let listener = Listener::bind(&["127.0.0.1:0".parse().unwrap()], &secret, Arc::new(|_| true)).unwrap();
    let port = listener.ports().0.unwrap();
    tokio::spawn(async move {
        while let Some((_, stream)) = listener.accept().await {
            tokio::spawn(stops(stream, bad, text.clone(), asked.clone()));
        }
    });
    port
}

async fn stops(mut stream: LaneStream, bad: Bad, text: Arc<Vec<u8>>, asked: Arc<AtomicUsize>) {
    let Ok(Some(body)) = read_frame(&mut stream).await else { return };
    asked.fetch_add(1, Ordering::Relaxed);
    answer(&mut stream, read(&body).unwrap(), &text, 2).await;
    if bad == Bad::Stops {
        std::future::pending().await
    }
}

/// Whatever is the matter with a member's TCP, its contents come over QUIC.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_bad_lane_does_not_bring_comes_over_quic() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = pair(temp.path()).await;
    let kinds = [Bad::Refused, Bad::Silent, Bad::Other, Bad::Stops, Bad::Breaks];
    let mut rogues = Vec::new();
    for (i, bad) in kinds.into_iter().enumerate() {
        let seed = 101 + i as u8;
        let rogue = Rogue::member(&a, seed).await;
        let mut talk = rogue.talk().await;
        let mut text = noise(9 * MIB);
        text[0] = seed;
        let (text, asked) = (Arc::new(text), Arc::new(AtomicUsize::new(0)));
        let v4 = open(bad, seed, text.clone(), asked.clone()).await;
        let quic = text.clone();
        tokio::spawn(answers(talk.conn.clone(), move |mut send: SendStream, request| {
            let text = quic.clone();
            tokio::spawn(async move {
                answer(&mut send, request, &text, 1).await;
                let _ = send.finish();
            });
        }));
        send_frame(&mut talk.send, &Message::Lane { v4, v6: 0 }).await.unwrap();
        send_frame(&mut talk.send, &rogue.open()).await.unwrap();
        let row = rogue.file(&format!("{bad:?}"), id_of(&text), text.len() as u64, 1);
        send_frame(&mut talk.send, &rogue.rows(1, vec![row])).await.unwrap();
        rogues.push((bad, rogue, talk, text, asked));
    }
    for (bad, _, talk, text, asked) in &rogues {
        let path = a.dir.join(format!("{bad:?}"));
        until(&format!("{bad:?}"), || std::fs::read(&path).is_ok_and(|t| t == **text)).await;
        let was = asked.load(Ordering::Relaxed);
        assert_eq!(was > 0, !matches!(bad, Bad::Refused | Bad::Other), "{bad:?} was asked {was} times");
        assert!(talk.conn.close_reason().is_none());
    }
    // And it is said.
    until("it is said of all", || {
        now(a.status()).devices.iter().filter(|d| d.tcp == Some(Tcp::Fails)).count() == kinds.len()
    })
    .await;
    until("b has all", || kinds.iter().all(|bad| b.dir.join(format!("{bad:?}")).exists())).await;
    let open = now(b.status()).devices.iter().any(|d| d.tcp == Some(Tcp::Open));
    assert!(open, "between honest devices it works");
    end(&[&a, &b]).await;
}
