//! Real nodes that gather large contents block by block, also from each other, and members that lie about blocks.
#![allow(clippy::unwrap_used)]

use crate::rogues::*;
use dunlin_core::blocks::{self, BLOCK, Bits, Value};
use dunlin_core::ids::ContentId;
use dunlin_core::message::{
    BlockLeaves, BlockPage, Chunk, ChunkPage, FEATURE_BLOCKS, FEATURE_LEAVES, Header, HeldBlocks, Holds,
    Piece, Request,
};
use dunlin_node::control::Api;
use dunlin_node::net::connection::SendStream;
use dunlin_node::transfer::{read_frame, send_frame};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const SIZE: u64 = 12 * BLOCK + 4321;

fn text(seed: u64) -> Vec<u8> {
    (0..SIZE).map(|i| ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn list_of(text: &[u8]) -> Vec<Value> {
    let block = |i| {
        let (offset, len) = blocks::range(i, SIZE);
        blocks::value(i, SIZE, &text[offset as usize..(offset + len) as usize])
    };
    (0..blocks::count(SIZE).unwrap()).map(block).collect()
}

/// What is told of a content of which only some blocks are held.
fn some(which: impl Fn(usize) -> bool) -> HeldBlocks {
    let count = blocks::count(SIZE).unwrap();
    let (mut here, coming) = (Bits::none(count), Bits::none(count));
    (0..count).filter(|i| which(*i)).for_each(|i| here.set(i, true));
    HeldBlocks { all: false, here: here.bytes().to_vec(), coming: coming.bytes().to_vec() }
}

async fn send_list(send: &mut SendStream, list: &[Value]) {
    let page = BlockPage::Blocks { values: list.concat(), last: true };
    let _ = send_frame(send, &page).await;
}

async fn send_pieces(send: &mut SendStream, pieces: &[Piece], text: &[u8]) {
    for piece in pieces {
        let _ = send_frame(send, &Header::Here).await;
        let _ = send.write_all(&text[piece.offset as usize..(piece.offset + piece.len) as usize]).await;
    }
}

/// Takes what is said to it, and says nothing.
fn drain(mut talk: Talk) {
    tokio::spawn(async move {
        while let Ok(Some(_)) = read_frame(&mut talk.recv).await {}
        drop(talk.send);
    });
}

/// Nobody has all of it: two devices get half each from a third, which goes, and complete it from each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn devices_that_have_parts_of_a_content_complete_it_between_them() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = pair(temp.path()).await;
    let mut rogue = Rogue::member(&a, 101).await;
    let text = Arc::new(text(1));
    let id = ContentId(*blake3::hash(&text).as_bytes());
    let sent = Arc::new(AtomicUsize::new(0));
    let mut conns = Vec::new();
    for (half, at) in [&a, &b].into_iter().enumerate() {
        let ticket = at.ticket().await;
        rogue.to = (ticket.inviter, ticket.addresses);
        crosses(&a, &b, &format!("{half}: who is a member is known")).await;
        let mut talk = rogue.talk_as(FEATURE_BLOCKS).await;
        send_frame(&mut talk.send, &rogue.open()).await.unwrap();
        let (text, sent) = (text.clone(), sent.clone());
        tokio::spawn(answers(talk.conn.clone(), move |mut send, request| {
            let (text, sent) = (text.clone(), sent.clone());
            tokio::spawn(async move {
                match request {
                    Request::Holds { .. } => {
                        let holds = Holds { contents: vec![some(|i| i % 2 == half)] };
                        let _ = send_frame(&mut send, &holds).await;
                    }
                    Request::Blocks { .. } => send_list(&mut send, &list_of(&text)).await,
                    Request::Pieces { pieces, .. } => {
                        sent.fetch_add(pieces.iter().map(|p| p.len as usize).sum(), Ordering::Relaxed);
                        send_pieces(&mut send, &pieces, &text).await;
                    }
                    _ => {}
                }
                let _ = send.finish();
            });
        }));
        let told = rogue.rows(1, vec![rogue.file("large", id, SIZE, 1)]);
        send_frame(&mut talk.send, &told).await.unwrap();
        conns.push(talk.conn.clone());
        drain(talk);
    }
    until("both got their half", || sent.load(Ordering::Relaxed) >= SIZE as usize).await;
    for at in [&a, &b] {
        let path = at.dir.join("large");
        until("all of it", || std::fs::read(&path).is_ok_and(|t| t == *text)).await;
    }
    assert_eq!(sent.load(Ordering::Relaxed), SIZE as usize, "nothing was asked of it that another had");
    drop(conns);
    end(&[&a, &b]).await;
}

/// Members that say they have all: one has a wrong list, one wrong bytes, one half a block and then silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_block_that_is_not_what_the_content_says_is_asked_of_another() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = pair(temp.path()).await;
    let text = Arc::new(text(2));
    let (whole, mut rogues) = (text.clone(), Vec::new());
    let [lists, lies] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    for kind in 0..3 {
        let rogue = Rogue::member(&a, 102 + kind).await;
        let mut talk = rogue.talk_as(FEATURE_BLOCKS).await;
        send_frame(&mut talk.send, &rogue.open()).await.unwrap();
        let (text, lists, lies) = (text.clone(), lists.clone(), lies.clone());
        tokio::spawn(answers(talk.conn.clone(), move |mut send, request| {
            let (text, lists, lies) = (text.clone(), lists.clone(), lies.clone());
            tokio::spawn(async move {
                match (kind, request) {
                    (_, Request::Holds { contents, .. }) => {
                        let all = HeldBlocks { all: true, ..HeldBlocks::default() };
                        let holds = Holds { contents: vec![all; contents.len() + 9] };
                        let _ = send_frame(&mut send, &holds).await;
                    }
                    (0, Request::Blocks { .. }) => {
                        lists.fetch_add(1, Ordering::Relaxed);
                        let mut list = list_of(&text);
                        list.swap(3, 4);
                        send_list(&mut send, &list).await;
                    }
                    (_, Request::Blocks { .. }) => send_list(&mut send, &list_of(&text)).await,
                    (2, Request::Pieces { .. }) => {
                        lies.fetch_add(1, Ordering::Relaxed);
                        let _ = send_frame(&mut send, &Header::Here).await;
                        let _ = send.write_all(&text[..5000]).await;
                        std::future::pending().await
                    }
                    (_, Request::Pieces { pieces, .. }) => {
                        lies.fetch_add(1, Ordering::Relaxed);
                        // The right bytes, but of other blocks.
                        let other = |p: &Piece| Piece { offset: if p.offset == 0 { BLOCK } else { 0 }, ..*p };
                        send_pieces(&mut send, &pieces.iter().map(other).collect::<Vec<_>>(), &text).await;
                    }
                    _ => {}
                }
                let _ = send.finish();
            });
        }));
        if kind == 2 {
            let row = rogue.file("large", ContentId(*blake3::hash(&whole).as_bytes()), SIZE, 1);
            send_frame(&mut talk.send, &rogue.rows(1, vec![row])).await.unwrap();
        }
        drain(talk);
        // Its connection lasts as long as it.
        rogues.push(rogue);
    }
    until("they lied", || lies.load(Ordering::Relaxed) >= 2).await;
    assert!(!a.dir.join("large").exists());
    // Somebody honest has it now, under another name.
    std::fs::write(b.dir.join("other"), &*text).unwrap();
    for name in ["large", "other"] {
        until(name, || std::fs::read(a.dir.join(name)).is_ok_and(|t| t == *text)).await;
    }
    let [lists, lies] = [lists, lies].map(|n| n.load(Ordering::Relaxed));
    println!("{lists} wrong lists, {lies} times wrong bytes");
    end(&[&a, &b]).await;
}

/// What a member says of the leaves of a block that was written to.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// What they are, and gives the right bytes.
    True,
    /// Those of the version before: nothing differs.
    Before,
    /// What they are, with other bytes for them.
    WrongBytes,
    /// Fewer than there are.
    Short,
    /// That it has none.
    Nothing,
}

/// The version before, the one that is told of, and what is said of it.
type Version = (Vec<u8>, Vec<u8>, Of);

/// A member with a file that is written to.
#[derive(Clone)]
struct Writes {
    /// What is told of.
    now: Arc<Mutex<Version>>,
    /// Blocks whose leaves were asked for, and bytes that were sent.
    asked: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

impl Writes {
    async fn answer(self, mut send: SendStream, request: Request) {
        let (before, text, of) = self.now.lock().unwrap().clone();
        match request {
            Request::Holds { contents, .. } => {
                let all = HeldBlocks { all: true, ..HeldBlocks::default() };
                let _ = send_frame(&mut send, &Holds { contents: vec![all; contents.len()] }).await;
            }
            Request::Blocks { .. } => send_list(&mut send, &list_of(&text)).await,
            Request::Leaves { blocks, .. } => {
                self.asked.fetch_add(blocks.len(), Ordering::Relaxed);
                for block in blocks {
                    let bytes = if matches!(of, Of::Before) { &before } else { &text };
                    let (offset, len) = blocks::range(block as usize, SIZE);
                    let bytes = &bytes[offset as usize..(offset + len) as usize];
                    let mut values = blocks::leaves(block as usize, SIZE, bytes).concat();
                    values.truncate(if matches!(of, Of::Short) { 64 } else { values.len() });
                    let nothing = matches!(of, Of::Nothing);
                    let answer = if nothing { BlockLeaves::NotHere } else { BlockLeaves::Leaves { values } };
                    let _ = send_frame(&mut send, &answer).await;
                }
            }
            Request::Pieces { pieces, .. } => {
                self.sent.fetch_add(pieces.iter().map(|p| p.len as usize).sum(), Ordering::Relaxed);
                let wrong = matches!(of, Of::WrongBytes) && pieces.iter().all(|p| p.len < BLOCK);
                send_pieces(&mut send, &pieces, if wrong { &before } else { &text }).await;
            }
            // Who cannot have the leaves asks for chunks.
            Request::Chunks { .. } => {
                let hash = |b: &[u8]| ContentId(*blake3::hash(b).as_bytes());
                let chunk = |b: &[u8]| Chunk { len: b.len() as u32, hash: hash(b) };
                let chunks = text.chunks(64 << 10).map(chunk).collect();
                let _ = send_frame(&mut send, &ChunkPage::Chunks { chunks, last: true }).await;
            }
            _ => {}
        }
        let _ = send.finish();
    }
}

/// Whatever is said of leaves, the file becomes what its content id says; where it is true, little is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_file_that_was_written_to_in_place_only_leaves_come() {
    let temp = tempfile::tempdir().unwrap();
    let a = Honest::start(temp.path(), "a").await;
    a.node.share(a.dir.clone()).await.unwrap();
    let rogue = Rogue::member(&a, 111).await;
    let mut talk = rogue.talk_as(FEATURE_BLOCKS | FEATURE_LEAVES).await;
    let now = Arc::new(Mutex::new((text(3), text(3), Of::True)));
    let [asked, sent] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let writes = Writes { now: now.clone(), asked: asked.clone(), sent: sent.clone() };
    tokio::spawn(answers(talk.conn.clone(), move |send, request| {
        tokio::spawn(writes.clone().answer(send, request));
    }));
    let path = a.dir.join("large");
    let tell = |counter: u64, text: &[u8]| {
        let id = ContentId(*blake3::hash(text).as_bytes());
        rogue.rows(counter, vec![rogue.file_at(counter, "large", id, SIZE, counter)])
    };
    send_frame(&mut talk.send, &rogue.open()).await.unwrap();
    let mut text = text(3);
    send_frame(&mut talk.send, &tell(1, &text)).await.unwrap();
    until("the first", || std::fs::read(&path).is_ok_and(|t| t == text)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 0, "there was nothing to compare with");
    for (counter, of) in (2..).zip([Of::True, Of::Before, Of::WrongBytes, Of::Short, Of::Nothing]) {
        let before = text.clone();
        text[5 * BLOCK as usize + 100 + counter as usize] ^= 0xff;
        *now.lock().unwrap() = (before, text.clone(), of);
        [&asked, &sent].iter().for_each(|n| n.store(0, Ordering::Relaxed));
        send_frame(&mut talk.send, &tell(counter, &text)).await.unwrap();
        until(&format!("{of:?}"), || std::fs::read(&path).is_ok_and(|t| t == text)).await;
        let [asked, sent] = [&asked, &sent].map(|n| n.load(Ordering::Relaxed));
        assert!(asked > 0, "{of:?}");
        match of {
            Of::True => assert_eq!(sent, blocks::LEAF as usize),
            Of::Before | Of::WrongBytes => {
                assert!(sent <= (BLOCK + 2 * blocks::LEAF) as usize, "{of:?}: {sent} bytes");
            }
            // Its chunks are cut elsewhere than here: all of them come.
            Of::Short | Of::Nothing => {}
        }
    }
    drain(talk);
    end(&[&a]).await;
}

/// Numbers beyond all ends in what is asked: an answer, or the end of the connection, and no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_for_blocks_are_bounded() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = pair(temp.path()).await;
    let rogue = Rogue::member(&a, 110).await;
    let (folder, content) = (rogue.folder, ContentId([9; 32]));
    let talk = rogue.talk_as(FEATURE_BLOCKS).await;
    for size in [0, 1, u64::MAX] {
        let (mut send, mut recv) = talk.conn.open_bi().await.unwrap();
        send_frame(&mut send, &Request::Blocks { folder, content, size }).await.unwrap();
        let body = read_frame(&mut recv).await.unwrap().unwrap();
        assert_eq!(dunlin_core::message::read::<BlockPage>(&body).unwrap(), BlockPage::NotHere);
    }
    let (mut send, _recv) = talk.conn.open_bi().await.unwrap();
    let contents = vec![content; 100_000 / 32];
    send_frame(&mut send, &Request::Holds { folder, contents }).await.unwrap();
    let closed = tokio::time::timeout(SOON, talk.conn.closed()).await;
    assert!(closed.is_ok(), "too much is not answered");
    let talk = rogue.talk_as(FEATURE_BLOCKS | FEATURE_LEAVES).await;
    for (size, block) in [(0, 0), (1, 0), (u64::MAX, u64::MAX), (SIZE, 99)] {
        let (mut send, mut recv) = talk.conn.open_bi().await.unwrap();
        let blocks = vec![block];
        send_frame(&mut send, &Request::Leaves { folder, content, size, blocks }).await.unwrap();
        let body = read_frame(&mut recv).await.unwrap().unwrap();
        assert_eq!(dunlin_core::message::read::<BlockLeaves>(&body).unwrap(), BlockLeaves::NotHere);
    }
    let (mut send, _recv) = talk.conn.open_bi().await.unwrap();
    let blocks = vec![0; 65];
    send_frame(&mut send, &Request::Leaves { folder, content, size: SIZE, blocks }).await.unwrap();
    assert!(tokio::time::timeout(SOON, talk.conn.closed()).await.is_ok(), "too much is not answered");
    crosses(&a, &b, "after that").await;
    end(&[&a, &b]).await;
}
