//! Real nodes, and members whose chunk lists lie.
#![allow(clippy::unwrap_used)]

use crate::rogues::*;
use dunlin_core::ids::{ContentId, DeviceId};
use dunlin_core::message::{
    Chunk, ChunkPage, FEATURE_PAGES, Header, PageList, PageRef, Request, page_id, pages,
};
use dunlin_core::path::RelPath;
use dunlin_node::chunks::chunks;
use dunlin_node::control::Api;
use dunlin_node::disk::Disk;
use dunlin_node::disk::posix::PosixDisk;
use dunlin_node::net::connection::SendStream;
use dunlin_node::transfer::{read_frame, send_frame};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const SIZE: usize = 6 << 20;

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
    out
}

/// A list of `bytes`, cut as its maker likes.
fn list(bytes: &[u8]) -> Vec<Chunk> {
    let hash = |b: &[u8]| ContentId(*blake3::hash(b).as_bytes());
    bytes.chunks(64 << 10).map(|b| Chunk { len: b.len() as u32, hash: hash(b) }).collect()
}

/// The chunks of a list from one byte to another.
fn within(list: &[Chunk], from: u64, len: u64) -> Vec<Chunk> {
    let mut at = 0;
    let mut is_in = |chunk: &&Chunk| {
        let here = (from..from + len).contains(&at);
        at += u64::from(chunk.len);
        here
    };
    list.iter().filter(|chunk| is_in(chunk)).copied().collect()
}

fn refs(chunks: &[Chunk]) -> Vec<PageRef> {
    let len = |p: &[Chunk]| p.iter().map(|c| u64::from(c.len)).sum();
    pages(chunks).map(|p| PageRef { id: page_id(p), len: len(p) }).collect()
}

/// The ways to lie about a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Frames without end that say nothing.
    Endless,
    /// Pages without end, shorter than any page.
    Crumbs,
    /// Pages that make up less than the content.
    Short,
    /// Pages that make up more.
    Long,
    /// Pages that are not what their names say.
    WrongPages,
    /// Pages with chunks of no length.
    Nothing,
    /// Lists that fit together, of something else, and its bytes.
    Other,
    /// Of what the asker has already, as it would cut it: all of it but the end is only copied.
    Old,
    /// Lists that fit, and bytes that do not.
    WrongBytes,
    /// A flat list without end, of a program that knows nothing of pages.
    EndlessFlat,
}

const LIES: [Lie; 10] = [
    Lie::Endless,
    Lie::Crumbs,
    Lie::Short,
    Lie::Long,
    Lie::WrongPages,
    Lie::Nothing,
    Lie::Other,
    Lie::Old,
    Lie::WrongBytes,
    Lie::EndlessFlat,
];

struct Told {
    lie: Lie,
    /// What the list is of, and the list.
    of: Vec<u8>,
    list: Vec<Chunk>,
    asked: Arc<Mutex<Vec<Lie>>>,
}

impl Told {
    async fn page_list(&self, send: &mut SendStream) -> Result<(), dunlin_node::transfer::StreamError> {
        let mut all = refs(&self.list);
        match self.lie {
            Lie::Endless => loop {
                send_frame(send, &PageList::Pages { pages: vec![], last: false }).await?;
            },
            Lie::Crumbs => loop {
                let pages = vec![PageRef { id: ContentId([3; 32]), len: 1 }];
                send_frame(send, &PageList::Pages { pages, last: false }).await?;
            },
            Lie::Short => drop(all.pop()),
            Lie::Long => all.push(all[0]),
            _ => {}
        }
        send_frame(send, &PageList::Pages { pages: all, last: true }).await
    }

    async fn answer(&self, mut send: SendStream, request: Request) {
        // Who asks may have had enough.
        let _ = match request {
            Request::PageList { .. } => {
                self.asked.lock().unwrap().push(self.lie);
                self.page_list(&mut send).await
            }
            Request::Pages { spans, .. } => {
                for span in spans {
                    let mut chunks = within(&self.list, span.offset, span.len);
                    match self.lie {
                        Lie::WrongPages => chunks[0].hash.0[7] ^= 1,
                        Lie::Nothing => chunks.push(Chunk { len: 0, hash: ContentId([0; 32]) }),
                        _ => {}
                    }
                    if send_frame(&mut send, &ChunkPage::Chunks { chunks, last: true }).await.is_err() {
                        return;
                    }
                }
                Ok(())
            }
            Request::Chunks { .. } if self.lie == Lie::EndlessFlat => {
                self.asked.lock().unwrap().push(self.lie);
                while send_frame(&mut send, &ChunkPage::Chunks { chunks: vec![], last: false }).await.is_ok()
                {
                }
                Ok(())
            }
            Request::Chunks { .. } => {
                let chunks = self.list.clone();
                send_frame(&mut send, &ChunkPage::Chunks { chunks, last: true }).await
            }
            Request::Pieces { pieces, .. } => {
                for piece in pieces {
                    let from = piece.offset as usize;
                    let mut bytes = self.of[from..from + piece.len as usize].to_vec();
                    if self.lie == Lie::WrongBytes {
                        bytes.fill(7);
                    }
                    let _ = send_frame(&mut send, &Header::Here).await;
                    let _ = send.write_all(&bytes).await;
                }
                Ok(())
            }
            Request::Have { .. }
            | Request::Blocks { .. }
            | Request::Holds { .. }
            | Request::Leaves { .. } => Ok(()),
        };
        let _ = send.finish();
    }
}

/// Whatever lists say, and whoever is asked first: what shows is what the hash says, from whoever has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lists_that_lie_are_refused_and_others_asked() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = pair(temp.path()).await;
    let old = noise(1, SIZE);
    std::fs::write(b.dir.join("large"), &old).unwrap();
    until("the old one", || std::fs::read(a.dir.join("large")).is_ok_and(|t| t == old)).await;
    // Every one of them is asked before b: they are sorted.
    let b_id = DeviceId::from_hex(&b.node.status().await.unwrap().device).unwrap();
    let id = |seed: &u8| *iroh::SecretKey::from_bytes(&[*seed; 32]).public().as_bytes();
    let mut seeds: Vec<u8> = (40..=255).filter(|s| id(s) < b_id.0).collect();
    seeds.sort_by_key(id);
    if seeds.len() < LIES.len() {
        println!("SKIPPED: b has so small an id that too few are asked before it");
        return;
    }
    let new = [&old[..SIZE / 2], b"inserted", &old[SIZE / 2..]].concat();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut rogues = Vec::new();
    for (lie, seed) in LIES.into_iter().zip(seeds) {
        let rogue = Rogue::member(&a, seed).await;
        let features = if lie == Lie::EndlessFlat { 0 } else { FEATURE_PAGES };
        let mut talk = rogue.talk_as(features).await;
        send_frame(&mut talk.send, &rogue.open()).await.unwrap();
        let of = match lie {
            Lie::Other => noise(2, new.len()),
            Lie::Old => [&old[..], b"the rest"].concat(),
            Lie::WrongBytes | Lie::WrongPages | Lie::Nothing => noise(3, new.len()),
            _ => new.clone(),
        };
        let list = if lie == Lie::Old { cut(temp.path(), &of) } else { list(&of) };
        let told = Arc::new(Told { lie, of, list, asked: asked.clone() });
        tokio::spawn(answers(talk.conn.clone(), move |send, request| {
            let told = told.clone();
            tokio::spawn(async move { told.answer(send, request).await });
        }));
        tokio::spawn(async move {
            let Talk { conn: _conn, send: _send, mut recv } = talk;
            while let Ok(Some(_)) = read_frame(&mut recv).await {}
        });
        // A connection ends with its transport.
        rogues.push(rogue);
    }
    let connected = || now(a.status()).devices.iter().filter(|d| d.connected).count();
    until("all share the folder", || connected() == LIES.len() + 1).await;
    let beside = temp.path().join("new");
    std::fs::write(&beside, &new).unwrap();
    std::fs::rename(&beside, b.dir.join("large")).unwrap();
    until("the new one", || {
        let shown = std::fs::read(a.dir.join("large")).unwrap();
        assert!(shown == old || shown == new, "something else shows");
        shown == new
    })
    .await;
    let asked = asked.lock().unwrap().clone();
    assert!(LIES.iter().all(|lie| asked.contains(lie)), "only {asked:?}");
    end(&[&a, &b]).await;
}

/// A member that tells of two versions of a file, and changes the old one in the other's folder while that copies from it.
struct Meddler {
    versions: [Vec<u8>; 2],
    lists: [Vec<Chunk>; 2],
    /// The file there, and what is written into it, once.
    meddles: Mutex<Option<(PathBuf, u64)>>,
    asked: Mutex<Vec<&'static str>>,
}

impl Meddler {
    fn which(&self, content: &ContentId) -> usize {
        usize::from(*blake3::hash(&self.versions[1]).as_bytes() == content.0)
    }

    async fn answer(&self, mut send: SendStream, request: Request) -> Option<()> {
        let note = |what| self.asked.lock().unwrap().push(what);
        match request {
            Request::PageList { content, .. } => {
                // By then the old file is known to its end.
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                let pages = refs(&self.lists[self.which(&content)]);
                send_frame(&mut send, &PageList::Pages { pages, last: true }).await.ok()?;
            }
            Request::Pages { content, spans, .. } => {
                note("pages");
                for span in spans {
                    let chunks = within(&self.lists[self.which(&content)], span.offset, span.len);
                    send_frame(&mut send, &ChunkPage::Chunks { chunks, last: true }).await.ok()?;
                }
            }
            Request::Chunks { content, .. } => {
                note("chunks");
                let chunks = self.lists[self.which(&content)].clone();
                send_frame(&mut send, &ChunkPage::Chunks { chunks, last: true }).await.ok()?;
            }
            Request::Pieces { pieces, .. } => {
                for piece in pieces {
                    let which = self.which(&piece.content);
                    if let Some((path, at)) =
                        (which == 1).then(|| self.meddles.lock().unwrap().take()).flatten()
                    {
                        use std::os::unix::fs::FileExt;
                        let file = std::fs::File::options().write(true).open(path).unwrap();
                        file.write_all_at(EDIT, at).unwrap();
                    }
                    let from = piece.offset as usize;
                    let bytes = &self.versions[which][from..from + piece.len as usize];
                    send_frame(&mut send, &Header::Here).await.ok()?;
                    send.write_all(bytes).await.ok()?;
                }
            }
            Request::Have { .. }
            | Request::Blocks { .. }
            | Request::Holds { .. }
            | Request::Leaves { .. } => {}
        }
        send.finish().ok()
    }
}

const EDIT: &[u8] = b"a user's own words";

fn cut(dir: &Path, bytes: &[u8]) -> Vec<Chunk> {
    std::fs::write(dir.join("cut"), bytes).unwrap();
    let file = PosixDisk::open(dir).unwrap().open(&RelPath::parse(b"cut").unwrap()).unwrap();
    chunks(file.as_ref()).map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_old_file_that_changes_while_it_is_copied_leads_to_nothing_wrong() {
    let temp = tempfile::tempdir().unwrap();
    let a = Honest::start(temp.path(), "a").await;
    a.node.share(a.dir.clone()).await.unwrap();
    let large = a.dir.join("large");
    let old = noise(5, SIZE);
    let new = [b"in front", &old[..]].concat();
    let edited = [&old[..SIZE - 4096], EDIT, &old[SIZE - 4096 + EDIT.len()..]].concat();
    let lists = [&old, &new].map(|bytes| cut(temp.path(), bytes));
    let meddles = Mutex::new(Some((large.clone(), SIZE as u64 - 4096)));
    let meddler =
        Arc::new(Meddler { versions: [old.clone(), new.clone()], lists, meddles, asked: Mutex::default() });
    let rogue = Rogue::member(&a, 9).await;
    let mut talk = rogue.talk_as(FEATURE_PAGES).await;
    let serves = meddler.clone();
    tokio::spawn(answers(talk.conn.clone(), move |send, request| {
        let serves = serves.clone();
        tokio::spawn(async move { serves.answer(send, request).await });
    }));
    let id = |bytes: &[u8]| ContentId(*blake3::hash(bytes).as_bytes());
    send_frame(&mut talk.send, &rogue.open()).await.unwrap();
    let first = rogue.file("large", id(&old), old.len() as u64, 1);
    send_frame(&mut talk.send, &rogue.rows(1, vec![first])).await.unwrap();
    until("the old one", || std::fs::read(&large).is_ok_and(|t| t == old)).await;
    meddler.asked.lock().unwrap().clear();
    let second = rogue.file_at(2, "large", id(&new), new.len() as u64, 2);
    send_frame(&mut talk.send, &rogue.rows(2, vec![second])).await.unwrap();
    let shown = || {
        let entries = std::fs::read_dir(&a.dir).unwrap().map(|e| e.unwrap());
        let files = entries.filter(|e| e.file_type().unwrap().is_file());
        files.filter_map(|e| std::fs::read(e.path()).ok()).collect::<Vec<_>>()
    };
    until("both", || {
        let shown = shown();
        assert!(shown.iter().all(|t| *t == old || *t == new || *t == edited), "something else shows");
        shown.contains(&new) && shown.contains(&edited)
    })
    .await;
    let asked = meddler.asked.lock().unwrap().clone();
    assert!(asked.contains(&"pages"), "{asked:?}");
    assert!(asked.contains(&"chunks"), "what was put together was not what it was to be: {asked:?}");
    end(&[&a]).await;
}
