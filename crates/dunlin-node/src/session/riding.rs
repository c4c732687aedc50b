//! Small contents ride along with the rows that tell of them: nobody has to ask for what changed a moment ago.

use crate::folder::{Folder, lock};
use crate::scan::SMALL;
use dunlin_core::codec::decode_state;
use dunlin_core::ids::ContentId;
use dunlin_core::message::{Message, RIDING_BYTES, RowBytes};
use dunlin_core::state::Content;

/// More rows than these are a first sync or a mass change: there, what is asked for is asked for together.
const ROWS_MAX: usize = 16;

/// What goes before these rows: the contents of theirs that changed on this disk a moment ago.
pub(super) fn with(folder: &Folder, rows: &[RowBytes]) -> Option<Message> {
    if rows.is_empty() || rows.len() > ROWS_MAX {
        return None;
    }
    let (mut contents, mut room) = (Vec::new(), RIDING_BYTES);
    let recent = lock(&folder.recent);
    for state in rows.iter().filter_map(|row| decode_state(&row.state).ok()) {
        for (_, content) in state.versions() {
            let Content::File { id, .. } = content else { continue };
            let bytes = recent.own(id).filter(|bytes| !bytes.is_empty() && bytes.len() <= room);
            if let Some(bytes) = bytes {
                room -= bytes.len();
                contents.push(bytes.to_vec().into());
            }
        }
    }
    (!contents.is_empty()).then_some(Message::Contents { folder: folder.id, contents })
}

/// Contents that a peer sent unasked are at hand for a while. What they are is what their hash says.
pub(super) fn take(folder: &Folder, contents: impl IntoIterator<Item = Vec<u8>>) {
    for bytes in contents.into_iter().filter(|bytes| bytes.len() as u64 <= SMALL) {
        let id = ContentId(*blake3::hash(&bytes).as_bytes());
        lock(&folder.recent).put(id, bytes, false);
    }
}
